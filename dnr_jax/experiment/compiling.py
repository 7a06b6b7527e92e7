"""Compile a row's programs in separate threads while the previous row trains.

Compiling takes most of a short run, and one program at a time it uses hardly more than one core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import jax

from dnr_jax.ahead import one_ahead
from dnr_jax.experiment import scoring, validation
from dnr_jax.experiment.assembly import Job
from dnr_jax.experiment.stages import StageRun, abstract_states, make_phases, stages_of
from dnr_jax.io import compiled
from dnr_jax.io.compiled import Count
from dnr_jax.training.phases import Phase, StagePlan, compile_phase
from dnr_jax.training.sharding import Apply
from dnr_jax.training.step import TrainState

Made = TypeVar("Made")
# Two programs at a time: tracing, a third of the work, is Python and gains nothing from more.
THREADS = 1


class Ready(NamedTuple):
    """A row and its programs.

    Attributes:
      job: the row.
      stages: its stages in order, and the plan of each; calling a program waits for it if a thread
        is still compiling it.
      made: counts all programs of the row, whichever thread makes them.
    """

    job: Job
    stages: list[tuple[StageRun, StagePlan]]
    made: Count


def ready(job: Job) -> Ready:
    """Lay out a row whose programs are compiled when first called."""
    return Ready(job, [(stage, make_phases(stage)) for stage in stages_of(job)], Count())


def ahead(jobs: Iterable[Job]) -> Iterator[Ready]:
    """Yield each row once compilation of the next row's programs has begun."""
    pool = ThreadPoolExecutor(THREADS, "compile")
    compiler = _Compiler(pool)
    try:
        yield from one_ahead(compiler.begin(job) for job in jobs)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _Compiler:
    """Compiles the programs of rows in threads; rows of one reranker share validation programs."""

    def __init__(self, pool: ThreadPoolExecutor):
        self._pool = pool
        self._judges: dict[Apply, Future[None]] = {}

    def begin(self, job: Job) -> Ready:
        row = ready(job)
        if not _is_simple(job) or job.run.has_begun(job.row.key):
            return row
        stages = [(stage, self._begin_stage(stage, plan, row.made)) for stage, plan in row.stages]
        return row._replace(stages=stages)

    def _begin_stage(self, stage: StageRun, plan: StagePlan, made: Count) -> StagePlan:
        """Begin compiling a stage; its first phase waits for all but the second's programs."""
        heuristic, learned = plan.phases
        states = self._submit(made, abstract_states, stage)  # begun first: what waits for it ends
        making = [self._submit(made, _compile_phase, stage, plan, heuristic, states)]
        if stage.last:
            score = stage.job.parts.score
            if score not in self._judges:
                self._judges[score] = self._submit(made, _compile_judges, stage, states)
            making.append(self._judges[score])
        if learned is not None:
            own = self._submit(made, _compile_phase, stage, plan, learned, states)
            learned = _after([own], learned)
        return plan._replace(phases=(_after(making, heuristic), learned))

    def _submit(self, made: Count, make: Callable[..., Made], *arguments: Any) -> Future[Made]:
        return self._pool.submit(_counted, made, make, *arguments)


def _counted(made: Count, make: Callable[..., Made], *arguments: Any) -> Made:
    with compiled.counted(made):
        return make(*arguments)


def _is_simple(job: Job) -> bool:
    """Tell whether the row's programs take whole splits on one device."""
    row = job.row
    return row.trains and not row.frozen and not row.train.stream and job.parts.layout.alone


def _compile_phase(
    stage: StageRun, plan: StagePlan, phase: Phase, states: Future[TrainState]
) -> None:
    data = stage.job.prepared.splits["train"].batch
    compile_phase(phase, plan, states.result(), data)


def _compile_judges(stage: StageRun, states: Future[TrainState]) -> None:
    params = states.result().params["reranker"]
    validation.compile_ndcg(stage.job, params)
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), params)
    scoring.compile_score(stage.job, one)


def _after(making: list[Future[None]], phase: Phase) -> Phase:
    def run(*arguments: Any) -> Any:
        for future in making:
            future.result()
        return phase.run(*arguments)

    return phase._replace(run=run)
