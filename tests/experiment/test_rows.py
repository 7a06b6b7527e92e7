"""The plan: typed rows, each with its own knobs on the config's, and only knobs that exist."""

import dataclasses

import pytest
from ml_collections import ConfigDict

from configs import common, movielens
from dnr_jax.experiment import sections
from dnr_jax.experiment.plan import make_plan
from dnr_jax.experiment.settings import RunSettings
from dnr_jax.settings import Settings


@pytest.fixture
def config():
    return movielens.get_config("paper").to_dict()


def rows_of(config):
    (plan,) = make_plan(config)
    return {row.key: row for row in plan.rows}


def test_the_default_table_has_the_rows_that_every_table_needs(config):
    rows = rows_of(config)
    assert list(rows) == [
        *("random", "popularity", "retriever", "reversed", "plain", "score"),
        *("dnr_b", "dnr_g", "dnr_r", "dnr_b_conditional"),
    ]
    assert rows["plain"].model == "prm"
    assert rows["plain"].label == "PRM without scores"
    assert rows["plain"].reranker.settings.score_entry == "none"
    assert rows["plain"].noise is None
    assert rows["dnr_b_conditional"].divergence.settings.conditional
    assert rows["dnr_b"].noise.name == "beta"
    assert rows["dnr_g"].noise.name == "gaussian"
    assert rows["dnr_r"].noise.name == "resampled"
    assert rows["reversed"].reranker.name == "reversed"


def test_a_backbone_has_every_dnr_row(config):
    for name, start in (("prm", ""), ("gru4rec", "gru4rec_")):
        config["table"] = ",".join(
            f"{start}dnr_{letter}{end}" for letter in "bgr" for end in ("", "_conditional")
        )
        rows = rows_of(config).values()
        assert len({row.model for row in rows}) == len({row.label for row in rows}) == 6
        assert {row.reranker.name for row in rows} == {name}
        noises = [row.noise.name for row in rows]
        assert noises == [n for n in ("beta", "gaussian", "resampled") for _ in range(2)]
        assert [row.divergence.settings.conditional for row in rows] == [False, True] * 3


def test_labels_name_the_model_as_its_paper_does(config):
    config["reranker"] = {"name": "gru4rec"}
    assert rows_of(config)["score"].label == "GRU4Rec with scores"


def test_a_knob_of_the_config_reaches_every_row_and_the_config_is_untouched(config):
    config["objective"] = {"lambda_x": 7.0}
    rows = rows_of(config)
    assert {row.objective.lambda_x for row in rows.values()} == {7.0}
    assert rows["plain"].reranker.settings.score_entry == "none"
    assert rows["score"].reranker.settings.score_entry == "concatenate"


def test_table_selects_and_orders(config):
    config["table"] = "dnr_b, random"
    assert list(rows_of(config)) == ["dnr_b", "random"]


def test_a_table_is_text_and_a_config_may_be_a_config_dict(config):
    assert make_plan(ConfigDict(config)) == make_plan(config)
    with pytest.raises(ValueError, match=r"config.table is \['random'\]: write its rows as text"):
        make_plan(config | {"table": ["random"]})


def test_a_row_that_learns_nothing_has_one_seed_and_no_noise(config):
    config |= {"seed": 3, "train": {"seeds": 2}}
    rows = rows_of(config)
    assert rows["random"].seeds == (3,)
    assert rows["random"].noise is None
    assert rows["dnr_b"].seeds == (3, 4)


def test_a_model_reads_its_own_knobs_and_those_that_all_share(config):
    config |= {"reranker": {"width": 32}, "rerankers": {"dcdr": {"beam": 2}}}
    config["table"] = "dcdr_t,dcdr_p"
    token, swaps = (rows_of(config)[key].reranker.settings for key in ("dcdr_t", "dcdr_p"))
    assert (token.width, token.beam, token.list_noise) == (32, 2, "token")
    assert dataclasses.replace(token, list_noise="permutation") == swaps


def test_a_generator_of_mixing_shares_the_noise_s_weight(config):
    config |= {"noise": {"lambda_c": 0.25}, "generator": {"name": "learned_mix"}}
    assert rows_of(config)["dnr_b"].generator.settings.lambda_c == 0.25


def test_a_plan_a_protocol(config):
    config["candidates"] = {"name": "retrieved_pool, exposed_plus_sampled"}
    plans = make_plan(config)
    assert [plan.protocol for plan in plans] == ["retrieved_pool", "exposed_plus_sampled"]
    assert plans[0].rows == plans[1].rows


def row(**row):
    return {"table": "a", "rows": {"a": {"model": "a", "label": "a", "set": {}} | row}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"table": "dnr_b,dnr_b"}, "name each row to run once"),
        ({"table": " "}, "name each row to run once"),
        ({"table": "dnr_x"}, r"config.table: there is no row 'dnr_x'; did you mean 'dnr_r'\?"),
        (
            row(set={"nois": {}}),
            r"config.rows.a.set: there is no knob 'nois'; did you mean 'noise'",
        ),
        (
            row(set={"noise": {"lambda": 1}}),
            r"config.rows.a.set.noise: there is no knob 'lambda'; did you mean 'lambda_c'\?",
        ),
        (row(set={"noise": {"lambda_c": 2.0}}), r"config.rows.a.set.noise.lambda_c is 2.0"),
        (row(set={"noise": {"name": "bta"}}), r"config.rows.a.set.noise.name: there is no noise"),
        (row(set={"reranker": {"heads": 3}}), r"config.reranker.width is 128, .* \(row 'a'\)"),
        (row(set={"data": {"history": 3}}), r"config.rows.a.set.data: a row cannot set it"),
        (row(set={"noise": 3}), r"config.rows.a.set.noise is 3: it must be a section"),
        (row(set=3), r"config.rows.a.set is 3"),
        (row(label="{model} here"), r"config.rows.a.label is '{model} here': it must be a text"),
        (row(label="{0}"), r"config.rows.a.label"),
        (row(label="{"), r"config.rows.a.label"),
        (row(model="a}"), r"config.rows.a.model"),
        (row(lable="a"), r"config.rows.a: there is no knob 'lable'; did you mean 'label'"),
        ({"trian": {}}, "config: there is no knob 'trian'; did you mean 'train'"),
        ({"train": 3}, "config.train is 3: it must be a section of knobs"),
        ({"seed": {}}, "config.seed is {}: it must be one value"),
        ({"data": {}}, "data.name is missing: it must be one of interactions, kuairand"),
        ({"rows": 3}, "config.rows is 3"),
    ],
)
def test_a_wrong_config_is_named_with_its_place(config, change, message):
    with pytest.raises(ValueError, match=message):
        make_plan(config | change)


def test_the_ablation_varies_one_knob_a_row():
    config = movielens.get_config("ablation").to_dict()
    rows = rows_of(config)
    assert rows["dnr_b_no_adv"].objective.lambda_adv == 0
    assert rows["heuristic_g"].generator is None
    swept = [row for row in rows.values() if row.sweep]
    assert {row.sweep["knob"] for row in swept} == {"lambda_c", "lambda_m", "lambda_e"}
    for row in swept:
        ((section, _),) = config["rows"][row.key]["set"].items()
        found = row.noise.settings if section == "noise" else getattr(row, section)
        assert getattr(found, row.sweep["knob"]) == row.sweep["value"]
        assert len({r.model for r in rows.values()}) == len(rows)


def fields_of(kind):
    for field in dataclasses.fields(kind):
        yield kind, field
        if isinstance(field.default, Settings):
            yield from fields_of(type(field.default))


def all_settings():
    """Every class of settings that a config can reach."""
    yield from sections.SECTIONS.values()
    yield RunSettings
    for choice in sections.CHOICES:
        yield from choice.shared.values()
        yield from (entry.settings for entry in choice.table.values())
    yield from (dataset.settings for dataset in sections.DATASETS.values())


def test_every_knob_says_what_it_is_for():
    for kind in all_settings():
        for owner, field in fields_of(kind):
            assert field.metadata.get("why"), f"{owner.__name__}.{field.name}"


def test_every_knob_can_be_set_on_the_command_line():
    """A name that ConfigDict uses itself cannot."""
    for kind in all_settings():
        for owner, field in fields_of(kind):
            assert not hasattr(ConfigDict, field.name), f"{owner.__name__}.{field.name}"


def test_the_defaults_are_a_config_that_works():
    for name in sections.DATASETS:
        whole = sections.defaults(name)
        assert sections.complete({"data": {"name": name}}) == whole
        sections.check(whole)
        assert "beam" in whole["rerankers"]["dcdr"]
        assert "width" not in whole["rerankers"]["dcdr"]
        assert common.experiment({"data": {"name": name}}).to_dict()["rows"]
