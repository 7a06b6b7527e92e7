"""How a program of this package speaks and ends: plain messages, errors in one line, Ctrl-C."""

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

# What a shell says of a program that Ctrl-C ended.
INTERRUPTED = 130
# Tracing makes many objects and little garbage: at Python's own thresholds looking through them is
# a fifteenth of the CPU time of a short run.
GARBAGE_THRESHOLDS = (100_000, 50, 1000)


@contextmanager
def one_line(stopped: str, words: Words = OF_A_RUN) -> Iterator[None]:
    """End the program in one line of stderr where the block raises an error that a user can mend.

    Args:
      stopped: what a user should know after Ctrl-C.
      words: the program's own, for errors of the operating system.
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
    """Tell whether Ctrl-C was pressed: what it broke off, as a library's loop, fails in its way."""
    return signal.getitimer(signal.ITIMER_REAL)[0] > 0


def stop(words: str) -> NoReturn:
    """Exit as an interrupted program does, and say what to do."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(f"stopped: {words}", file=sys.stderr)
    sys.exit(INTERRUPTED)


def whole_process(program: Callable[[], None]) -> None:
    """Run a program that is all that its process does.

    After Ctrl-C the process ends at once: threads of JAX may still be computing, and taking the
    interpreter down under them can crash. Once the program has ended, Ctrl-C changes nothing more.
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

    An exception inside a callback of C code may be lost: one would not end the program. Python
    shows a traceback of what is lost; of an interrupt it says nothing to a user.
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
    """Where nobody reads any more, as behind `head`, the work goes on without a word."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)


def log_plainly(level: int = logging.INFO) -> None:
    """Show this package's messages of a level or above without prefixes."""
    handler = _Plain(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("dnr_jax")
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
