"""One plain line for an error of the operating system: which file, what is wrong, what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple


class Words(NamedTuple):
    """A program's own terms in messages.

    Attributes:
      places: the options that say where it writes.
      unit: when started again, the program resumes after the last finished one of these.
    """

    places: str
    unit: str


OF_A_RUN = Words("--workdir or --config.cache", "epoch")
_IN_THE_WAY = "move it away and start the same command again"


@cache
def _cures(words: Words) -> Mapping[int, str]:
    elsewhere = f"choose a place of your own by {words.places}"
    go_on = f"then start the same command again: it goes on from the last finished {words.unit}"
    return {
        errno.ENOSPC: f"free some space or choose another disk, {go_on}",
        errno.EDQUOT: f"free some space or choose another disk, {go_on}",
        errno.EFBIG: f"files may not be so large here: raise the limit (ulimit -f), {go_on}",
        errno.EMFILE: f"this process may not open more files: raise the limit (ulimit -n), {go_on}",
        errno.ENFILE: f"close other programs, {go_on}",
        errno.EIO: f"the disk may be failing: choose another, or {go_on.removeprefix('then ')}",
        errno.EACCES: f"change its permissions, or {elsewhere}",
        errno.EPERM: f"change its permissions, or {elsewhere}",
        errno.EROFS: elsewhere,
        errno.EISDIR: f"there is a folder where a file should be: {_IN_THE_WAY}",
        errno.ENOTDIR: f"there is a file where a folder should be: {_IN_THE_WAY}",
        errno.EEXIST: f"there is a file where a folder should be: {_IN_THE_WAY}",
        errno.ELOOP: f"there is a link where a file should be: {_IN_THE_WAY}",
    }


def explain(error: OSError, words: Words = OF_A_RUN) -> str:
    """Say in one line what went wrong with which file, and the usual remedy if there is one."""
    if error.errno is None or error.strerror is None:
        return " ".join(str(error).split())
    place = error.filename2 or error.filename
    # The system's own words: some errors carry others, which the cure repeats.
    said = f"{os.fsdecode(place)}: {os.strerror(error.errno)}" if place else error.strerror
    cure = _cures(words).get(error.errno)
    return f"{said}; {cure}" if cure else said
