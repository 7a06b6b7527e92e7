"""Every config and preset can work, says only what differs, and reaches the paper's ablations."""

import dataclasses
import importlib
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import common
from dnr_jax.experiment import sections
from dnr_jax.experiment.plan import make_plan
from dnr_jax.rerankers import RERANKERS

CONFIGS = Path(__file__).parents[1] / "configs"
MODULES = sorted(p.stem for p in CONFIGS.glob("*.py") if p.stem not in ("__init__", "common"))
PRESETS = ("", "smoke", "paper")


def get_config(module, preset=""):
    return importlib.import_module(f"configs.{module}").get_config(preset)


@pytest.fixture
def rows():
    """Plan the default table of a config after `--config.KNOB=VALUE` overrides."""

    def make(*overrides, module="movielens"):
        config = ConfigDict(sections.complete(get_config(module).to_dict()))
        config.lock()
        config.update_from_flattened_dict(dict(overrides))
        (plan,) = make_plan(config.to_dict())
        return {row.key: row for row in plan.rows}

    return make


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("module", MODULES)
def test_every_preset_is_a_plan(module, preset):
    config = get_config(module, preset)
    assert isinstance(config, ConfigDict)
    (plan,) = make_plan(config.to_dict())
    assert len(plan.rows) == (5 if preset == "smoke" else 10)
    for row in plan.rows:
        assert 0 < row.train.lambda_e < row.train.epochs


@pytest.mark.parametrize(
    ("preset", "keys"),
    [("converged", common.CLAIM_TABLE), ("variants", common.VARIANTS_TABLE)],
)
@pytest.mark.parametrize("module", MODULES)
def test_rows_that_train_to_convergence_have_equal_budgets_on_one_backbone(module, preset, keys):
    config = get_config(module, preset).to_dict()
    defaults = sections.defaults(config["data"]["name"])
    for place, differs in differences({"train": config["train"]}, defaults):
        assert differs, place
    (plan,) = make_plan(config)
    learned = [row for row in plan.rows if row.trains]
    assert tuple(row.key for row in plan.rows) == keys
    assert {row.reranker.name for row in learned} == {"prm"}
    budgets = {(r.train.epochs, r.train.patience, r.train.learning_rate_factors) for r in learned}
    assert len(budgets) == 1
    assert {"plain", "score", "score_dropout", "dnr_g"} <= {row.key for row in learned}


@pytest.mark.parametrize("module", MODULES)
def test_the_rate_of_converged_rows_falls_twice_before_they_end_together(module):
    (plan,) = make_plan(get_config(module, "converged").to_dict())
    for row in (row for row in plan.rows if row.trains):
        assert row.train.patience == 0
        for settings in (row.optim.reranker, row.optim.generator):
            assert settings.decay_factor == 0.1
            assert 2 * settings.decay_every < row.train.epochs


def test_list_models_stand_without_and_with_matching_in_one_table():
    (plan,) = make_plan(get_config("movielens", "matching").to_dict())
    rows = {row.key: row for row in plan.rows}
    pairs = [("score", "score_matching")]
    pairs += [(f"{name}_score", f"{name}_matching") for name in common.MATCHING_MODELS]
    for without, matched in pairs:
        reranker = rows[without].reranker
        settings = dataclasses.replace(reranker.settings, matching=True)
        assert settings != reranker.settings
        assert rows[matched].reranker == reranker._replace(settings=settings)
        assert rows[matched].label != rows[without].label


def differences(changes, base, place=""):
    for name, value in changes.items():
        if isinstance(value, dict):
            yield from differences(value, base[name], f"{place}.{name}")
        else:
            yield f"{place}.{name}", value != base[name]


@pytest.mark.parametrize("preset", [*PRESETS, "rivals", "rivals_paper", "ablation"])
@pytest.mark.parametrize("module", MODULES)
def test_a_config_says_only_what_differs_from_the_defaults(module, preset):
    config = get_config(module, preset).to_dict()
    rows = config.pop("rows")
    name = config["data"].pop("name")
    assert config.pop("table")
    assert all(key in rows for key in common.DEFAULT_TABLE)
    for place, differs in differences(config, sections.defaults(name)):
        assert differs, place


@pytest.mark.parametrize("preset", ["rivals", "rivals_paper"])
@pytest.mark.parametrize("module", MODULES)
def test_the_rivals_are_all_models_with_scores_tuned_alike(module, preset):
    plan, *_ = make_plan(get_config(module, preset).to_dict())
    assert {row.reranker.name for row in plan.rows} == set(RERANKERS)
    for row in plan.rows:
        assert getattr(row.reranker.settings, "score_entry", "concatenate") == "concatenate"
        assert len(row.train.learning_rate_factors) > 1
        assert row.train.seeds >= 3
    assert sum("dnr" in row.key for row in plan.rows) == 6 * (1 + len(common.BACKBONES))


@pytest.mark.parametrize("module", MODULES)
def test_an_unknown_preset_names_the_known_ones(module):
    with pytest.raises(ValueError, match="no preset 'smokey': choose one of none, smoke"):
        importlib.import_module(f"configs.{module}").get_config("smokey")


def test_presets_do_not_share_state():
    movielens = importlib.import_module("configs.movielens")
    before = movielens.get_config().to_dict()
    changed = movielens.get_config("smoke")
    changed.optim.reranker.learning_rate = 7.0
    assert changed.optim.generator.learning_rate != 7.0
    assert movielens.get_config().to_dict() == before


# The paper's ablation: PRM without a score | with it, concatenated, added, as a weight | heuristic
# only | without L_adv | without L_x | the full DNR-G and DNR-B.
def test_ablation_the_score_is_left_out_or_enters_in_three_ways(rows):
    plain = rows()["plain"]
    assert plain.reranker.settings.score_entry == "none"
    assert plain.noise is plain.generator is None
    for entry in ("concatenate", "add", "weight"):
        row = rows(("reranker.score_entry", entry))["score"]
        assert row.reranker.settings.score_entry == entry
        assert row.noise is row.generator is None


def test_ablation_heuristic_noise_only(rows):
    table = rows(("generator.name", "none"))
    assert table["dnr_g"].noise.name == "gaussian"
    assert table["dnr_b"].noise.name == "beta"
    assert all(row.generator is None for row in table.values())


@pytest.mark.parametrize("term", ["lambda_adv", "lambda_x", "lambda_m"])
def test_ablation_without_a_term(rows, term):
    full, table = rows(), rows((f"objective.{term}", 0.0))
    assert getattr(full["dnr_b"].objective, term) > 0
    assert {getattr(row.objective, term) for row in table.values()} == {0.0}
    for key, row in table.items():
        assert dataclasses.replace(row, objective=full[key].objective) == full[key]


def test_ablation_the_full_game_with_either_noise(rows):
    for key, noise in (("dnr_g", "gaussian"), ("dnr_b", "beta"), ("dnr_r", "resampled")):
        row = rows()[key]
        assert row.noise.name == noise
        assert row.generator.name.startswith("learned_")
        objective = row.objective
        assert min(objective.lambda_m, objective.lambda_adv, objective.lambda_x) > 0
        assert not row.divergence.settings.conditional
    assert rows()["dnr_b_conditional"].divergence.settings.conditional


def test_ablation_another_reranker_takes_the_whole_table(rows):
    trivial = {"random", "popularity", "retriever", "reversed"}
    for name in set(RERANKERS) - trivial:
        table = rows(("reranker.name", name))
        assert {row.reranker.name for row in table.values()} == trivial | {name}
