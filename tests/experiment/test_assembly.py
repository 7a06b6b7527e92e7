"""A row of the plan decides what is built: ablations leave parts out, and nothing else."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from dnr_jax.experiment import datasets
from dnr_jax.experiment.assembly import Job, assemble
from dnr_jax.experiment.plan import make_plan
from dnr_jax.experiment.stages import make_phases, stages_of
from dnr_jax.training.epoch import alternate
from dnr_jax.training.optimizers import GENERATOR, RERANKER

LEARNED = ("plain", "score", "dnr_b", "dnr_g", "dnr_r", "dnr_b_conditional")


@pytest.fixture(scope="module")
def jobs(tiny):
    """Assemble the rows of the table under an override."""

    def make(**changes):
        (plan,) = make_plan(tiny(**changes))
        prepared = datasets.prepare(plan.data)
        parts = assemble(plan, prepared)
        return {
            row.key: Job(plan, row, assembly, prepared, None)
            for row, assembly in zip(plan.rows, parts, strict=True)
        }

    return make


@pytest.fixture(scope="module")
def built(jobs):
    """Hand out the assemblies alone."""
    return lambda **changes: {key: job.parts for key, job in jobs(**changes).items()}


def test_only_denoising_rows_have_noise(built):
    built = built()
    for key in LEARNED:
        assert (built[key].heuristic is not None) == key.startswith("dnr")
        assert (built[key].generator is not None) == key.startswith("dnr")


def test_heuristic_only_has_no_generator(built):
    built = built(generator={"name": "none"})
    for key in LEARNED:
        assert (built[key].heuristic is not None) == key.startswith("dnr")
        assert built[key].generator is None


def test_rows_of_one_reranker_share_one_program(built):
    built = built()
    assert len({id(built[key].score) for key in ("score", "dnr_b", "dnr_g", "dnr_r")}) == 1
    assert built["plain"].score is not built["score"].score


def test_a_cpu_scores_few_requests_at_a_time(jobs, monkeypatch):
    sizes = {size: jobs(table="plain", eval={"batch_size": size})["plain"] for size in (512, 100)}
    assert [job.scored_at_once for job in sizes.values()] == [64, 100]
    job = sizes[512]
    two = job.parts.layout._replace(mesh=SimpleNamespace(size=2))
    assert job._replace(parts=job.parts._replace(layout=two)).scored_at_once == 512
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert job.scored_at_once == 512


def test_no_learned_phase_without_a_generator_or_epochs_for_it(jobs):
    def phases(key, **changes):
        (stage,) = stages_of(jobs(**changes)[key])
        return make_phases(stage).phases

    assert phases("dnr_b")[1] is not None
    assert phases("dnr_b")[1].updates.turns.tolist() == [GENERATOR, RERANKER] * 4
    assert phases("score")[1] is None
    assert phases("dnr_b", generator={"name": "none"})[1] is None
    assert phases("dnr_b", train={"lambda_e": 2})[1] is None


def test_a_rival_trains_by_its_own_loss_unless_told_otherwise(built):
    dlcm = built(reranker={"name": "dlcm"})
    assert dlcm["score"].stages[0].loss is not None
    assert dlcm["dnr_b"].stages[0].loss is None
    assert (
        built(reranker={"name": "dlcm"}, train={"loss": "direct"})["score"].stages[0].loss is None
    )
    assert built()["score"].stages[0].loss is None


@pytest.fixture
def blind(jobs):
    """A GoalRank row on data without any displayed order."""

    def make(**changes):
        job = jobs(table="score", reranker={"name": "goalrank"}, **changes)["score"]
        train = job.prepared.splits["train"]
        slate = np.full_like(train.batch.slate, -1)
        bare = train._replace(batch=train.batch.replace(slate=slate))
        splits = dict(job.prepared.splits) | {"train": bare}
        return job.plan, job.prepared._replace(splits=splits)

    return make


def test_a_model_that_needs_the_shown_order_refuses_data_without_one(blind):
    with pytest.raises(ValueError, match=r"'goalrank' learns from the order.*no training request"):
        assemble(*blind())
    assert not assemble(*blind(train={"loss": "direct"}))[0].arranges


def test_only_a_loss_that_fixes_the_offset_of_the_logits_makes_log_odds(jobs):
    own = jobs(table="plain,dlcm_score,dnr_b,goalrank_score,nar4rec_score,irgan_score")
    assert {key for key, job in own.items() if job.parts.log_odds} == {
        *("plain", "dnr_b", "goalrank_score")
    }
    listwise = jobs(table="plain,dnr_b", objective={"loss": "attention_rank"})
    assert not any(job.parts.log_odds for job in listwise.values())
    [equal] = jobs(table="dlcm_score", train={"loss": "direct"}).values()
    assert equal.parts.log_odds


def test_the_generator_s_epochs_are_of_its_own_updates(jobs):
    train = {"generator_updates": 3, "reranker_updates": 4, "batch_size": 7}
    [job] = jobs(table="dnr_b", train=train).values()
    batches = -(-len(job.prepared.splits["train"].request_id) // 7)
    turns = alternate(batches, generator_updates=3, reranker_updates=4).turns
    counted = job.parts.optimizer.keywords["steps_per_epoch"]
    assert counted == (np.sum(turns == RERANKER), np.sum(turns == GENERATOR))


def test_rows_that_read_scores_are_refused_where_the_data_has_none(jobs):
    job = jobs(table="random,plain,score,dnr_b,retriever")["plain"]
    train = job.prepared.splits["train"]
    blank = train._replace(batch=train.batch.replace(scores=np.zeros_like(train.batch.scores)))
    prepared = job.prepared._replace(splits=dict(job.prepared.splits) | {"train": blank})
    words = r"scores \(score, dnr_b, retriever\), but .*--config.table=random,plain"
    with pytest.raises(ValueError, match=words):
        assemble(job.plan, prepared)
    assert {row.key for row in job.plan.rows if row.reads_scores} == {"score", "dnr_b", "retriever"}
