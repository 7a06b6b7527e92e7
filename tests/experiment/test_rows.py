"""Rows of the table: each sets its knobs on the base, and only knobs that exist."""

import pytest

from configs import common, movielens
from dnr_jax.experiment.rows import resolve


@pytest.fixture
def config():
    return common.get_config().to_dict()


def test_the_default_table_has_the_rows_that_every_table_needs(config):
    rows = {row.key: row for row in resolve(config)}
    assert list(rows) == [
        *("random", "popularity", "retriever", "reversed", "plain", "score"),
        *("dnr_b", "dnr_g", "dnr_r", "dnr_b_conditional"),
    ]
    assert rows["plain"].model == "prm"
    assert rows["plain"].label == "PRM without scores"
    assert rows["plain"].config["reranker"]["score_entry"] == "none"
    assert rows["plain"].config["noise"]["name"] == "none"
    assert rows["dnr_b_conditional"].config["divergence"]["conditional"]
    assert rows["dnr_b"].config["noise"]["name"] == "beta"
    assert rows["dnr_g"].config["noise"]["name"] == "gaussian"
    assert rows["dnr_r"].config["noise"]["name"] == "resampled"
    assert rows["reversed"].config["reranker"]["name"] == "reversed"


def test_a_backbone_has_every_dnr_row(config):
    for name, start in (("prm", ""), ("gru4rec", "gru4rec_")):
        config["table"] = ",".join(
            f"{start}dnr_{letter}{end}" for letter in "bgr" for end in ("", "_conditional")
        )
        rows = resolve(config)
        assert len({row.model for row in rows}) == len({row.label for row in rows}) == 6
        assert {row.config["reranker"]["name"] for row in rows} == {name}
        noises = [row.config["noise"]["name"] for row in rows]
        assert noises == [n for n in ("beta", "gaussian", "resampled") for _ in range(2)]
        assert [row.config["divergence"]["conditional"] for row in rows] == [False, True] * 3


def test_an_override_of_the_base_reaches_every_row_and_the_base_is_untouched(config):
    config["objective"]["lambda_x"] = 7.0
    rows = resolve(config)
    assert {row.config["objective"]["lambda_x"] for row in rows} == {7.0}
    assert config["reranker"]["score_entry"] == "concatenate"


def test_table_selects_and_orders(config):
    config["table"] = "dnr_b, random"
    assert [row.key for row in resolve(config)] == ["dnr_b", "random"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"table": "dnr_b,dnr_b"}, "name each row to run once"),
        ({"table": " "}, "name each row to run once"),
        ({"table": "dnr_x"}, r"config.table: there is no row 'dnr_x'; did you mean 'dnr_r'\?"),
        (
            {"table": "a", "rows": {"a": {"model": "a", "label": "a", "set": {"nois": {}}}}},
            "'nois'; did you mean 'noise'",
        ),
        (
            {
                "table": "a",
                "rows": {"a": {"model": "a", "label": "a", "set": {"noise": {"lambda": 1}}}},
            },
            r"config.rows.a.set.noise: there is no knob 'lambda'; did you mean 'lambda_c'\?",
        ),
    ],
)
def test_a_misspelt_name_is_named_with_its_neighbour(config, change, message):
    with pytest.raises(ValueError, match=message):
        resolve(config | change)


def test_the_ablation_varies_one_knob_a_row():
    config = movielens.get_config("ablation").to_dict()
    rows = {row.key: row for row in resolve(config)}
    assert rows["dnr_b_no_adv"].config["objective"]["lambda_adv"] == 0
    assert rows["heuristic_g"].config["generator"]["name"] == "none"
    swept = [row for row in rows.values() if row.sweep]
    assert {row.sweep["knob"] for row in swept} == {"lambda_c", "lambda_m", "lambda_e"}
    for row in swept:
        (section,) = config["rows"][row.key]["set"]
        assert row.config[section][row.sweep["knob"]] == row.sweep["value"]
        assert len({r.model for r in rows.values()}) == len(rows)
