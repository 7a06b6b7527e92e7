"""One plain line for an error of the operating system: which file, what is wrong, what to do."""

from __future__ import annotations

import errno
import os

_ELSEWHERE = "choose a place of your own by --workdir or --config.cache"
_GO_ON = "then start the same command again: it goes on from the last finished epoch"
_IN_THE_WAY = "move it away and start the same command again"
_CURES = {
    errno.ENOSPC: f"free some space or choose another disk, {_GO_ON}",
    errno.EDQUOT: f"free some space or choose another disk, {_GO_ON}",
    errno.EFBIG: f"files may not be so large here: raise the limit (ulimit -f), {_GO_ON}",
    errno.EMFILE: f"this process may not open more files: raise the limit (ulimit -n), {_GO_ON}",
    errno.ENFILE: f"close other programs, {_GO_ON}",
    errno.EIO: f"the disk may be failing: choose another, or {_GO_ON.removeprefix('then ')}",
    errno.EACCES: f"change its permissions, or {_ELSEWHERE}",
    errno.EPERM: f"change its permissions, or {_ELSEWHERE}",
    errno.EROFS: _ELSEWHERE,
    errno.EISDIR: f"there is a folder where a file should be: {_IN_THE_WAY}",
    errno.ENOTDIR: f"there is a file where a folder should be: {_IN_THE_WAY}",
    errno.EEXIST: f"there is a file where a folder should be: {_IN_THE_WAY}",
    errno.ELOOP: f"there is a link where a file should be: {_IN_THE_WAY}",
}


def explain(error: OSError) -> str:
    """Say in one line what went wrong with which file, and the cure if there is a usual one."""
    if error.errno is None or error.strerror is None:
        return " ".join(str(error).split())
    place = error.filename2 or error.filename
    # The system's own words: some errors carry others, which the cure repeats.
    said = f"{os.fsdecode(place)}: {os.strerror(error.errno)}" if place else error.strerror
    cure = _CURES.get(error.errno)
    return f"{said}; {cure}" if cure else said
