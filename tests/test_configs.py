"""Every config and preset can work, explains each knob, and reaches the paper's ablations."""

import importlib
import itertools
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import common
from dnr_jax.experiment import checks
from dnr_jax.experiment.rows import resolve
from dnr_jax.rerankers import RERANKERS

CONFIGS = Path(__file__).parents[1] / "configs"
MODULES = sorted(p.stem for p in CONFIGS.glob("*.py") if p.stem != "common")
PRESETS = ("", "smoke", "paper")
NO = "none"


@pytest.fixture
def rows():
    """Resolve the default table of a config after `--config.KNOB=VALUE` overrides."""

    def make(*overrides, module="movielens"):
        config = importlib.import_module(f"configs.{module}").get_config()
        config.lock()
        config.update_from_flattened_dict(dict(overrides))
        plain = config.to_dict()
        found = resolve(plain)
        checks.check(plain, found)
        return {row.key: row.config for row in found}

    return make


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("module", MODULES)
def test_every_preset_passes_the_checks(module, preset):
    config = importlib.import_module(f"configs.{module}").get_config(preset)
    assert isinstance(config, ConfigDict)
    config.lock()
    with pytest.raises(KeyError, match="epochs"):
        config.update_from_flattened_dict({"train.epoch": 3})
    plain = config.to_dict()
    table = resolve(plain)
    checks.check(plain, table)
    assert len(table) == (5 if preset == "smoke" else 10)
    assert 0 < plain["train"]["lambda_e"] < plain["train"]["epochs"]


@pytest.mark.parametrize("preset", ["rivals", "rivals_paper"])
@pytest.mark.parametrize("module", MODULES)
def test_the_rivals_are_all_models_with_scores_tuned_alike(module, preset):
    config = importlib.import_module(f"configs.{module}").get_config(preset).to_dict()
    table = {row.key: row.config for row in resolve(config)}
    assert {row["reranker"]["name"] for row in table.values()} == set(RERANKERS)
    assert not any(row["reranker"]["score_entry"] == NO for row in table.values())
    assert len(config["train"]["learning_rate_factors"]) > 1
    assert config["train"]["seeds"] >= 3
    assert sum("dnr" in key for key in table) == 6 * (1 + len(common.BACKBONES))


@pytest.mark.parametrize("module", MODULES)
def test_an_unknown_preset_names_the_known_ones(module):
    with pytest.raises(ValueError, match="no preset 'smokey': choose one of none, smoke"):
        importlib.import_module(f"configs.{module}").get_config("smokey")


def test_presets_do_not_share_state():
    movielens = importlib.import_module("configs.movielens")
    before = movielens.get_config("paper").to_dict()
    movielens.get_config("smoke").optim.reranker.learning_rate = 7.0
    assert movielens.get_config("paper").to_dict() == before
    both = movielens.get_config("paper").optim
    both.reranker.learning_rate = 7.0
    assert both.generator.learning_rate != 7.0


# Names that say it all.
PLAIN = {"heads", "beta", "epochs", "width", "dropout", "loss", "learning_rate", "batch_size"}
PLAIN |= {"users", "videos", "items", "days", "requests_per_user_day", "seed"}
PLAIN |= {"name", "model", "label", "set"}
KNOB = re.compile(r'\s+"(?P<name>\w+)": (?![\[{_]|dict|rows)(?P<value>.+),(?P<why>\s*# .*)?$')


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda p: p.name)
def test_every_knob_is_explained(path):
    """A knob has a comment on its line or on the one above, unless its name says it all."""
    lines = path.read_text().splitlines()
    knobs = [(above, KNOB.match(line)) for above, line in itertools.pairwise(lines)]
    bare = [
        knob[0].strip()
        for above, knob in knobs
        if knob and not knob["why"] and not above.strip().startswith("#")
        if knob["name"] not in PLAIN
    ]
    assert not bare


# method.md: PRM without a score | with it, concatenated, added, as a weight | heuristic only |
# without L_adv | without L_x | the full DNR-G and DNR-B.
def test_ablation_the_score_is_left_out_or_enters_in_three_ways(rows):
    assert rows()["plain"]["reranker"]["score_entry"] == NO
    assert rows()["plain"]["noise"]["name"] == rows()["plain"]["generator"]["name"] == NO
    for entry in ("concatenate", "add", "weight"):
        row = rows(("reranker.score_entry", entry))["score"]
        assert row["reranker"]["score_entry"] == entry
        assert row["noise"]["name"] == row["generator"]["name"] == NO


def test_ablation_heuristic_noise_only(rows):
    table = rows(("generator.name", NO))
    assert table["dnr_g"]["noise"]["name"] == "gaussian"
    assert table["dnr_b"]["noise"]["name"] == "beta"
    assert all(config["generator"]["name"] == NO for config in table.values())


@pytest.mark.parametrize("term", ["lambda_adv", "lambda_x", "lambda_m"])
def test_ablation_without_a_term(rows, term):
    full, table = rows(), rows((f"objective.{term}", 0.0))
    assert full["dnr_b"]["objective"][term] > 0
    assert {config["objective"][term] for config in table.values()} == {0.0}
    for key, config in table.items():
        assert config | {"objective": full[key]["objective"]} == full[key]


def test_ablation_the_full_game_with_either_noise(rows):
    for key, noise in (("dnr_g", "gaussian"), ("dnr_b", "beta"), ("dnr_r", "resampled")):
        row = rows()[key]
        assert row["noise"]["name"] == noise
        assert row["generator"]["name"].startswith("learned_")
        assert min(row["objective"].values()) > 0
        assert not row["divergence"]["conditional"]
    assert rows()["dnr_b_conditional"]["divergence"]["conditional"]


def test_ablation_another_reranker_takes_the_whole_table(rows):
    trivial = {"random", "popularity", "retriever", "reversed"}
    for name in set(RERANKERS) - trivial:
        table = rows(("reranker.name", name))
        assert {config["reranker"]["name"] for config in table.values()} == trivial | {name}
