"""Time from a row's start to its first step; nearly all of it is compilation."""

from __future__ import annotations

import logging
import time
from typing import Any

from dnr_jax.experiment.rows import Row
from dnr_jax.io.compiled import Count
from dnr_jax.io.run_folder import RunFolder
from dnr_jax.training.phases import Phase, StagePlan

_LOG = logging.getLogger(__name__)


class FirstStep:
    """Reports once, in the log and in `timings.jsonl`, when a row's first step began.

    Attributes:
      row, run: the row and its run folder.
      count: counts the row's programs, including those that other threads made before `began`.
      began: `time.monotonic()` at the start of the row.
    """

    def __init__(self, row: Row, run: RunFolder, count: Count, began: float):
        self.row, self.run, self.count, self.began = row, run, count, began
        self._told = False

    def noted(self, plan: StagePlan) -> StagePlan:
        """Return `plan` with a watch on its epoch programs.

        Calling an epoch program returns once it is compiled and has begun to run on the device.
        """

        def watch(phase: Phase) -> Phase:
            def run(*arguments: Any) -> Any:
                result = phase.run(*arguments)
                self._tell()
                return result

            return phase._replace(run=run)

        heuristic, learned = plan.phases
        return plan._replace(phases=(watch(heuristic), learned and watch(learned)))

    def _tell(self) -> None:
        if self._told:
            return
        self._told, seconds = True, time.monotonic() - self.began
        self.run.append_timings({"row": self.row.key, "first_step_seconds": seconds})
        _LOG.info(
            "%s: first step after %.1f s (%d programs compiled, %d from the cache)",
            *(self.row.label, seconds, self.count.compiled, self.count.from_cache),
        )
