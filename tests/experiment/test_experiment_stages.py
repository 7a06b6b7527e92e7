"""Training in stages, trials of the learning rate, and several protocols in one run."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_reranker import LinearSettings, linear

from dnr_jax import experiment
from dnr_jax.experiment import datasets, saved, training
from dnr_jax.experiment.assembly import Job, assemble
from dnr_jax.experiment.compiling import ready
from dnr_jax.experiment.plan import make_plan
from dnr_jax.experiment.stages import first_states, stages_of
from dnr_jax.experiment.trials import trials_of
from dnr_jax.io import checkpoints, run_folder
from dnr_jax.io.run_folder import RunFolder
from dnr_jax.nn.adapter import logit_loss
from dnr_jax.nn.losses import bce
from dnr_jax.rerankers import RERANKERS, Entry
from dnr_jax.training.phases import start
from dnr_jax.types import Stage


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def job_of(config):
    """Assemble the one row of a config, without a run folder."""
    (plan,) = make_plan(config)
    prepared = datasets.prepare(plan.data)
    return Job(plan, plan.rows[0], assemble(plan, prepared)[0], prepared, None)


def open_run(folder, job):
    return run_folder.open_run(folder, saved.describe(job.plan))


def two_stages(task, settings):
    """Make `linear` that learns its items first, and what a score is worth after them."""
    model = linear(task, settings)
    loss = logit_loss(model, bce)
    stages = (Stage("evaluator", loss, ("item",)), Stage("policy", loss, ("slope",)))
    return model._replace(stages=stages)


@pytest.fixture(scope="module", autouse=True)
def tabled():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RERANKERS, "two_stages", Entry("Two stages", LinearSettings, two_stages))
        yield


@pytest.fixture(scope="module")
def staged(tiny, shared, tabled):
    """Train one model of two stages; return its job, folder and progress, twice."""
    job = job_of(tiny(reranker={"name": "two_stages"}, table="score"))
    with open_run(shared / "staged", job) as run:
        job = job._replace(run=run)
        progress, again = training.train(ready(job)), training.train(ready(job))
    return job, shared / "staged", progress, again


def test_each_stage_starts_where_the_one_before_was_best_and_moves_its_groups_alone(staged):
    job, folder, progress, _ = staged
    stage = stages_of(job._replace(run=RunFolder(folder, -1)))[0]
    template = start(first_states(stage, None), len(stage.trials))
    first = checkpoints.restore(stage.folder, "last", template)[0].best_params
    last = progress.states.params["reranker"]
    for name in last:
        same = all(map(np.array_equal, leaves(first[name]), leaves(last[name])))
        assert same == (name not in job.parts.stages[1].groups), name


def test_a_finished_row_comes_back_without_training(staged):
    _, _, progress, again = staged
    for one, other in zip(leaves(progress.best_params), leaves(again.best_params), strict=True):
        np.testing.assert_array_equal(one, other)


def test_metrics_count_epochs_through_the_stages(staged):
    _, folder, _, _ = staged
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(r.get("stage"), r["epoch"]) for r in records if r["seed"] == 0] == [
        ("evaluator", 1),
        ("evaluator", 2),
        (None, 3),
        (None, 4),
    ]
    assert records[0]["validation minus loss"] < 0


def test_a_stage_that_was_cut_goes_on_to_the_same_parameters(staged, shared):
    job, folder, progress, _ = staged
    with open_run(shared / "cut", job) as run:
        cut = job._replace(run=run)
        save = checkpoints.save

        def dies(where, name, state, metadata):
            if where.name == "score" and metadata["epoch"] == 2:
                raise KeyboardInterrupt
            save(where, name, state, metadata)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoints, "save", dies)
            with pytest.raises(KeyboardInterrupt):
                training.train(ready(cut))
        found = training.train(ready(cut))
    for one, other in zip(leaves(progress.best_params), leaves(found.best_params), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (shared / "cut" / "metrics.jsonl").read_bytes() == (
        folder / "metrics.jsonl"
    ).read_bytes()


def counting(task, settings):
    """Make `linear` with a count that every stage changes before it begins, and nothing else."""
    model = linear(task, settings)
    loss = logit_loss(model, bce)

    def init(key, request, scores):
        return model.init(key, request, scores) | {"count": jnp.full((), 2.0)}

    def begin(change):
        return lambda params: params | {"count": change(params["count"])}

    changes = {"plus_one": lambda count: count + 1, "squared": lambda count: count**2}
    stages = (
        Stage(name, loss, ("item", "slope"), begin=begin(change))
        for name, change in changes.items()
    )
    return model._replace(init=init, stages=tuple(stages))


@pytest.mark.parametrize("killed", [None, ("plus_one", 1), ("score", 1), ("score", 2)])
def test_what_a_stage_begins_with_is_done_once_however_often_it_is_killed(
    tiny, shared, monkeypatch, killed
):
    monkeypatch.setitem(RERANKERS, "counting", Entry("Counting", LinearSettings, counting))
    job = job_of(tiny(reranker={"name": "counting"}, table="score"))
    save = checkpoints.save

    def dies(where, name, state, metadata):
        save(where, name, state, metadata)
        if (where.name, metadata["epoch"]) == killed and name == "last":
            raise KeyboardInterrupt

    with open_run(shared / f"counting-{killed}", job) as run:
        job = job._replace(run=run)
        if killed is not None:
            monkeypatch.setattr(checkpoints, "save", dies)
            with pytest.raises(KeyboardInterrupt):
                training.train(ready(job))
            monkeypatch.setattr(checkpoints, "save", save)
        progress = training.train(ready(job))
    for params in (progress.best_params, progress.states.params["reranker"]):
        np.testing.assert_array_equal(params["count"], (2.0 + 1.0) ** 2)


def test_trials_equal_runs_of_their_own_and_validation_chooses(tiny, shared, run_table):
    base = {"reranker": {"name": "linear"}, "table": "score"}
    both = run_table(tiny(**base, train={"learning_rate_factors": (0.01, 1.0)}), shared / "both")
    values = {}
    for factor in (0.01, 1.0):
        config = tiny(**base, train={"learning_rate_factors": (factor,)})
        folder = run_table(config, shared / f"alone-{factor}")
        rows = json.loads((folder / "results.json").read_text())["rows"]
        valid = np.mean([r["metrics"]["n@6"] for r in rows if r["split"] == "valid"])
        values[factor] = (valid, rows)
    assert values[0.01][0] != values[1.0][0]
    best = max(values, key=lambda factor: values[factor][0])
    found = json.loads((both / "results.json").read_text())["rows"]
    assert found == values[best][1]
    assert {row["learning_rate_factor"] for row in found} == {best}
    row = make_plan(tiny(**base, train={"learning_rate_factors": (0.01, 1.0)}))[0].rows[0]
    assert [trial.rate for trial in trials_of(row)] == [0.01, 0.01, 1.0, 1.0]


def test_several_protocols_make_a_run_folder_each(tiny, shared):
    config = tiny(
        table="random,retriever",
        candidates={"name": "exposed_plus_sampled,retrieved_pool"},
    )
    folders = experiment.run_all(config, shared / "several")
    assert [f.name for f in folders] == ["exposed_plus_sampled", "retrieved_pool"]
    for folder in folders:
        rows = json.loads((folder / "results.json").read_text())["rows"]
        assert {row["protocol"] for row in rows} == {folder.name}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("retrieved_pool,retrieved_pool", "lists a protocol twice"),
        ("retrieved_pool,logged", "candidates.name .*no protocol 'logged'"),
    ],
)
def test_protocols_are_all_checked_before_the_first_runs(tiny, shared, name, message):
    with pytest.raises(ValueError, match=message):
        experiment.run_all(tiny(candidates={"name": name}), shared / "never")
    assert not (shared / "never").exists()
