"""What a run keeps for later: the best parameters in a checkpoint are those validation chose.

Seeds improve at different epochs, so that the best parameters are not those of one epoch.
"""

import json

import jax
import numpy as np
import pytest
from linear_reranker import LinearSettings, linear
from scipy.special import expit

from dnr_jax import experiment
from dnr_jax.evaluation import score_split
from dnr_jax.experiment import datasets, saved, training, validation
from dnr_jax.experiment.assembly import Job, assemble
from dnr_jax.experiment.compiling import ready
from dnr_jax.experiment.plan import make_plan
from dnr_jax.io import checkpoints, run_folder
from dnr_jax.nn.adapter import logit_loss
from dnr_jax.nn.losses import bce
from dnr_jax.rerankers import RERANKERS, Entry
from dnr_jax.types import Stage

EPOCHS = 10


def job_of(config):
    (plan,) = make_plan(config)
    prepared = datasets.prepare(plan.data)
    return Job(plan, plan.rows[0], assemble(plan, prepared)[0], prepared, None)


def restored(folder, progress):
    """Read the last checkpoint of a row or stage, and its metadata."""
    template = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), progress)
    return checkpoints.restore(folder, "last", template)


def lines_of(folder, name):
    """Values of one term by seed and epoch, `float64 [S, E]`."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if name in line]
    seeds, epochs = (sorted({line[key] for line in lines}) for key in ("seed", "epoch"))
    value = {(line["seed"], line["epoch"]): line[name] for line in lines}
    return np.array([[value[seed, epoch] for epoch in epochs] for seed in seeds])


def staged(task, settings):
    """Make `linear` with a stage before the last, as a scorer by its own loss."""
    model = linear(task, settings)
    stages = (Stage("first", logit_loss(model, bce), ("item", "slope")), Stage("train", None))
    return model._replace(stages=stages)


@pytest.fixture(scope="module")
def chosen(tiny, shared):
    """Run one row of two stages whose seeds are at their best at different epochs."""
    config = tiny(
        reranker={"name": "staged"},
        table="score",
        train={"epochs": EPOCHS, "seeds": 3, "patience": 0},
        optim={"reranker": {"learning_rate": 0.3}},
    )
    folder = shared / "chosen"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RERANKERS, "staged", Entry("Staged", LinearSettings, staged))
        experiment.run_all(config, folder)
        job = job_of(config)
        with run_folder.open_run(folder, saved.describe(job.plan)) as run:
            progress = training.train(ready(job._replace(run=run)))  # finished: from its checkpoint
    return job, folder, progress


def test_the_best_parameters_score_what_validation_said_of_the_best_epoch(chosen):
    job, folder, progress = chosen
    params = restored(folder / "checkpoints" / "score", progress)[0].best_params
    said = lines_of(folder, "validation N@6")
    assert len(set(said.argmax(axis=1))) > 1
    np.testing.assert_allclose(validation.ndcg(job)(params), said.max(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(progress.best_epoch, 1 + said.argmax(axis=1))


def test_results_are_those_of_the_best_parameters(chosen):
    _, folder, progress = chosen
    params = restored(folder / "checkpoints" / "score", progress)[0].best_params
    rows = json.loads((folder / "results.json").read_text())["rows"]
    valid = [row for row in rows if row["split"] == "valid"]
    said = lines_of(folder, "validation N@6")
    np.testing.assert_allclose([r["metrics"]["n@6"] for r in valid], said.max(axis=1), rtol=1e-5)
    assert [row["best_epoch"] for row in valid] == np.asarray(progress.best_epoch).tolist()
    size = sum(leaf.size for leaf in jax.tree.leaves(params)) // len(valid)
    assert {row["parameters"] for row in valid} == {size}


def test_the_plots_draw_the_best_parameters_of_the_first_seed(chosen):
    job, folder, progress = chosen
    params = restored(folder / "checkpoints" / "score", progress)[0].best_params
    split = job.prepared.splits["test"].batch
    first = jax.tree.map(lambda leaf: leaf[0], params)
    logits = np.asarray(score_split(job.parts.score, first, split, batch_size=len(split.scores)))
    judged = np.asarray(split.weights) > 0
    with np.load(folder / "analysis" / "score.npz") as drawn:
        np.testing.assert_allclose(drawn["probabilities"], expit(logits)[judged], rtol=1e-5)
        np.testing.assert_array_equal(drawn["labels"], np.asarray(split.labels)[judged])


def test_the_last_checkpoint_holds_the_state_of_the_last_epoch(chosen):
    _, folder, progress = chosen
    last, metadata = restored(folder / "checkpoints" / "score", progress)
    said = lines_of(folder, "validation N@6")
    assert metadata["epoch"] == EPOCHS
    np.testing.assert_allclose(metadata["valid"], said[:, -1])
    now = validation.ndcg(chosen[0])(last.states.params["reranker"])
    np.testing.assert_allclose(now, said[:, -1], rtol=1e-6)


def test_the_best_parameters_of_a_stage_are_those_its_own_loss_chose(chosen):
    job, folder, progress = chosen
    stage = job.parts.stages[0]
    params = restored(folder / "checkpoints" / "score" / stage.name, progress)[0].best_params
    said = lines_of(folder, "validation minus loss")
    assert len(set(said.argmax(axis=1))) > 1
    found = validation.minus_loss(job, stage)(params)
    np.testing.assert_allclose(found, said.max(axis=1), rtol=1e-5)
