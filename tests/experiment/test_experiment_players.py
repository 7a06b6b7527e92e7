"""A row's config decides who plays: ablations switch players off, and nothing else."""

import pytest

from dnr_jax.experiment import datasets, players
from dnr_jax.experiment.rows import resolve
from dnr_jax.experiment.training import make_plan
from dnr_jax.training.optimizers import GENERATOR, RERANKER

LEARNED = ("plain", "score", "dnr_b", "dnr_g", "dnr_r", "dnr_b_conditional")


@pytest.fixture(scope="module")
def teams(tiny):
    """Build the players of the table under an override."""

    def make(**changes):
        config = tiny(**changes)
        rows = resolve(config)
        built = players.build_all(rows, datasets.prepare(datasets.plan_of(config)))
        return {row.key: team for row, team in zip(rows, built, strict=True)}

    return make


def test_only_denoising_rows_have_noise(teams):
    built = teams()
    for key in LEARNED:
        assert (built[key].heuristic is not None) == key.startswith("dnr")
        assert (built[key].generator is not None) == key.startswith("dnr")


def test_heuristic_only_has_no_generator(teams):
    built = teams(generator={"name": "none"})
    for key in LEARNED:
        assert (built[key].heuristic is not None) == key.startswith("dnr")
        assert built[key].generator is None


def test_rows_of_one_reranker_share_one_program(teams):
    built = teams()
    assert len({id(built[key].score) for key in ("score", "dnr_b", "dnr_g", "dnr_r")}) == 1
    assert built["plain"].score is not built["score"].score


def test_no_learned_phase_without_a_generator_or_epochs_for_it(teams, tiny):
    def phases(key, **changes):
        config = next(r.config for r in resolve(tiny(**changes)) if r.key == key)
        team = teams(**changes)[key]
        return make_plan(config, team, team.stages[0], count=120, seeds=[0]).phases

    assert phases("dnr_b")[1] is not None
    assert phases("dnr_b")[1].updates.turns.tolist() == [GENERATOR, RERANKER] * 4
    assert phases("score")[1] is None
    assert phases("dnr_b", generator={"name": "none"})[1] is None
    assert phases("dnr_b", train={"lambda_e": 2})[1] is None


def test_a_rival_trains_by_its_own_loss_unless_told_otherwise(teams):
    assert teams(reranker={"name": "dlcm"})["score"].stages[0].loss is not None
    assert teams(reranker={"name": "dlcm"})["dnr_b"].stages[0].loss is None
    assert teams(reranker={"name": "dlcm"}, train={"loss": "bce"})["score"].stages[0].loss is None
    assert teams()["score"].stages[0].loss is None
