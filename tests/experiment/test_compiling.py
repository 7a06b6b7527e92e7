"""Programs that threads compile ahead are the ones that a row calls, and change no number."""

import jax
import numpy as np
import pytest

from dnr_jax.experiment import compiling, datasets, models, saved, scoring, training
from dnr_jax.experiment.assembly import Job, assemble
from dnr_jax.experiment.plan import make_plan
from dnr_jax.io import compiled, run_folder


@pytest.fixture
def jobs_of(tiny, shared):
    """Assemble the rows of a config anew, so that nothing is compiled yet, over one folder."""

    def make(folder, **changes):
        changes = {"reranker": {"name": "linear"}, "table": "score,dnr_b"} | changes
        (plan,) = make_plan(tiny(**changes))
        prepared = datasets.prepare(plan.data)
        with run_folder.open_run(shared / folder, saved.describe(plan)) as run:
            models.save_shared(plan, prepared, run)
            parts = assemble(plan, prepared)
            yield [Job(plan, *row, prepared, run) for row in zip(plan.rows, parts, strict=True)]

    return make


def finish(row):
    """Train and score a row; return what of it this thread made, and its parameters."""
    with compiled.counted() as count:
        progress = training.train(row)
        scoring.score_row(row.job, progress)
    return count.programs, jax.tree.leaves(progress.best_params)


def test_a_row_finds_its_programs_made_and_learns_the_same(jobs_of):
    found = {}
    for name in ("first", "plain", "ahead"):  # the first makes what all rows share
        for jobs in jobs_of(name):
            rows = compiling.ahead(jobs) if name == "ahead" else map(compiling.ready, jobs)
            found[name] = [(row, *finish(row)) for row in rows]
    pairs = zip(found["plain"], found["ahead"], strict=True)
    for (_, every, same), (row, own, params) in pairs:
        # One phase, validation and scoring; two phases, judged by the programs of the row before.
        made = {"score": 3, "dnr_b": 2}[row.job.row.key]
        assert (row.made.programs, own) == (made, every - made), row.job.row.key
        for one, other in zip(params, same, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_next_row_is_begun_before_one_is_handed_out(monkeypatch):
    begun = []
    monkeypatch.setattr(compiling._Compiler, "begin", lambda self, job: begun.append(job) or job)
    seen = [(row, tuple(begun)) for row in compiling.ahead("abc")]
    assert seen == [("a", ("a", "b")), ("b", ("a", "b", "c")), ("c", ("a", "b", "c"))]


@pytest.mark.parametrize("why", ["streamed", "begun"])
def test_what_would_not_be_called_is_not_compiled(jobs_of, why, monkeypatch):
    made = []
    monkeypatch.setattr(compiling, "_counted", lambda *asked: made.append(asked))
    for jobs in jobs_of(why, train={"stream": 2} if why == "streamed" else {}):
        if why == "begun":
            for job in jobs:
                job.run.checkpoints(job.row.key).mkdir(parents=True)
        trained = [training.train(row) for row in compiling.ahead(jobs)]
    assert [int(progress.epoch) for progress in trained] == [2, 2]
    assert made == []


def test_what_fails_in_a_thread_fails_where_it_is_called(jobs_of, monkeypatch):
    def fails(*_):
        raise MemoryError("too large")

    monkeypatch.setattr(compiling, "compile_phase", fails)
    for jobs in jobs_of("fails"):
        rows = compiling.ahead(jobs)  # held: what is forgotten is cancelled
        with pytest.raises(MemoryError, match="too large"):
            training.train(next(rows))
