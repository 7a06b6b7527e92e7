"""Arrays in Orbax's file format; the only module that uses Orbax."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from dnr_jax import durable
from dnr_jax.io.leaves import Leaf


def write(folder: Path, leaves: list[Leaf], arrays: list[np.ndarray]) -> None:
    """Write the arrays of leaves into a new folder, except arrays without elements.

    Raises:
      OSError: it cannot be written.
    """
    payload = {name: a for name, a in zip(_names(leaves), arrays, strict=True) if a.size}
    with _orbax(folder.parent), ocp.Checkpointer(ocp.StandardCheckpointHandler()) as writer:
        writer.save(folder, args=ocp.args.StandardSave(payload))


def read(folder: Path, leaves: list[Leaf], empty: list[np.ndarray]) -> list[np.ndarray]:
    """Read all arrays of a folder, in the order of its leaves; `empty` gives shapes and dtypes."""
    forms = dict(zip(_names(leaves), empty, strict=True))
    payload = {name: array for name, array in forms.items() if array.size}
    with _orbax(folder.parent), ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        payload = reader.restore(folder, args=ocp.args.StandardRestore(payload))
    return list((forms | payload).values())


def _names(leaves: list[Leaf]) -> list[str]:
    """Name the stored arrays: the number makes names unique, the path makes them readable."""
    return [f"{i:05d}{leaf.path}" for i, leaf in enumerate(leaves)]


@contextmanager
def _orbax(place: Path) -> Iterator[None]:
    """Drop orbax's own log lines for one call, and make its system errors an `OSError`."""
    logger, tasks = logging.getLogger("absl"), logging.getLogger("asyncio")
    hook = sys.unraisablehook
    logger.addFilter(_is_foreign)
    # These two stay in place after an error: writers of other arrays may still report later.
    tasks.addFilter(_is_no_late_report)
    sys.unraisablehook = partial(_drop_late_reports, hook)
    try:
        with durable.naming(place):
            yield
        sys.unraisablehook = hook
        tasks.removeFilter(_is_no_late_report)
    except ValueError as error:
        code = re.search(r"os_error_code='(\d+)'", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(place)) from None
    finally:
        logger.removeFilter(_is_foreign)


def _is_foreign(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


def _is_no_late_report(record: logging.LogRecord) -> bool:
    return "exception was never retrieved" not in record.getMessage()


def _drop_late_reports(hook: Callable[[Any], None], lost: Any) -> None:
    """Print no traceback of a thread that reports to orbax's loop after its first error."""
    if not (lost.exc_type is RuntimeError and str(lost.exc_value) == "Event loop is closed"):
        hook(lost)
