"""Console behaviour of this package's programs: plain messages, one-line errors, Ctrl-C."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, NoReturn, TextIO

from dnr_jax.io import os_errors
from dnr_jax.io.os_errors import OF_A_RUN, Words

# The exit status of a program that Ctrl-C ended.
INTERRUPTED = 130
# Tracing makes many objects and little garbage: at Python's own thresholds, garbage collection
# takes a fifteenth of the CPU time of a short run.
GARBAGE_THRESHOLDS = (100_000, 50, 1000)


@contextmanager
def one_line(stopped: str, words: Words = OF_A_RUN) -> Iterator[None]:
    """End the program with one line on stderr if the block raises an error that a user can fix.

    Args:
      stopped: what a user should know after Ctrl-C.
      words: the program's own texts for errors of the operating system.
    """
    try:
        yield
    except (KeyboardInterrupt, Exception) as error:
        if isinstance(error, KeyboardInterrupt) or _interrupted():
            stop(stopped)
        if isinstance(error, OSError):
            sys.exit(f"error: {os_errors.explain(error, words)}")
        if isinstance(error, ValueError | ArithmeticError | MemoryError):
            sys.exit(f"error: {str(error) or 'not enough memory: choose smaller sizes'}")
        raise


def _interrupted() -> bool:
    """Tell whether Ctrl-C was pressed: interrupted library code may raise an error of its own."""
    return signal.getitimer(signal.ITIMER_REAL)[0] > 0


def stop(words: str) -> NoReturn:
    """Exit like an interrupted program, and print what to do next."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(f"stopped: {words}", file=sys.stderr)
    sys.exit(INTERRUPTED)


def whole_process(program: Callable[[], None]) -> None:
    """Run a program that has its process to itself.

    After Ctrl-C the process ends at once: JAX threads may still be computing, and shutting down
    the interpreter under them can crash. Once the program has ended, Ctrl-C has no effect.
    """
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    try:
        program()
    except SystemExit as end:
        if end.code != INTERRUPTED:
            raise
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)


def catch_interrupts() -> None:
    """Let Ctrl-C raise `KeyboardInterrupt` each second until the program ends.

    An exception inside a callback of C code may be lost, so a single one might not end the
    program. Python prints a traceback of a lost exception; for an interrupt it is suppressed.
    """
    signal.signal(signal.SIGINT, _interrupt)
    sys.unraisablehook = partial(_show_lost, sys.unraisablehook)


def _show_lost(hook: Callable[[Any], None], lost: Any) -> None:
    if lost.exc_type is not KeyboardInterrupt:
        hook(lost)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    raise KeyboardInterrupt


class _Plain(logging.StreamHandler[TextIO]):
    """Ignores a closed output, as behind `head`: the work goes on silently."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)


def log_plainly(level: int = logging.INFO) -> None:
    """Show this package's messages of a level or above, without prefixes."""
    handler = _Plain(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("dnr_jax")
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
