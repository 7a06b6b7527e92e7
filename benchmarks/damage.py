"""Ways to damage files, and checks that detect damage, for the fault campaign."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq

from dnr_jax.io import checkpoints

Damage = Callable[[Path, random.Random], None]

# Files of a run folder that hold times, or that exist only while a process runs.
VARIABLE = (
    "environment.json",
    "timings.jsonl",
    "results.md",
    "results.tex",
    "plots/speed.png",
    ".lock",
)


def delete(path: Path, _: random.Random) -> None:
    """Remove it."""
    path.unlink()


def truncate(path: Path, draw: random.Random) -> None:
    """Cut it anywhere."""
    os.truncate(path, draw.randrange(max(path.stat().st_size, 1)))


def empty(path: Path, _: random.Random) -> None:
    """Empty it."""
    os.truncate(path, 0)


def zero(path: Path, _: random.Random) -> None:
    """Keep only its size, as some file systems do after a power loss."""
    path.write_bytes(bytes(path.stat().st_size))


def flip(path: Path, draw: random.Random) -> None:
    """Flip one bit."""
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def digit(path: Path, draw: random.Random) -> None:
    """Change one digit, as in a manual edit; a file without digits gets a flipped bit."""
    content = bytearray(path.read_bytes())
    places = [n for n, byte in enumerate(content) if chr(byte) in "12345678"]
    if not places:
        return flip(path, draw)
    content[draw.choice(places)] += 1
    path.write_bytes(content)
    return None


def bury(path: Path, _: random.Random) -> None:
    """Put a folder in its place."""
    path.unlink()
    path.mkdir()


def link(path: Path, _: random.Random) -> None:
    """Put a link to nowhere in its place."""
    path.unlink()
    path.symlink_to("/nowhere/at/all")


def lock_away(path: Path, _: random.Random) -> None:
    """Make it unreadable; the campaign drops root's privileges in the process."""
    path.chmod(0)


def of_another(path: Path, _: random.Random) -> None:
    """Replace its content by that of a neighbour of the same kind."""
    near = sorted(path.parent.iterdir())
    others = [p for p in near if p.is_file() and p.suffix == path.suffix and p != path]
    same = [p for p in others if p.stat().st_size == path.stat().st_size]
    for other in (same or others)[:1]:
        shutil.copyfile(other, path)


DAMAGES: dict[str, Damage] = {
    "deleted": delete,
    "truncated": truncate,
    "emptied": empty,
    "zeroed": zero,
    "bit flipped": flip,
    "digit changed": digit,
    "a folder": bury,
    "a dangling link": link,
    "unreadable": lock_away,
    "another's content": of_another,
}


def results(folder: Path) -> dict[str, bytes]:
    """Read the files that are a pure function of config and data, by name."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and name not in VARIABLE and not name.startswith("checkpoints/"):
            found[name] = path.read_bytes()
    return found


def differing(folder: Path, reference: dict[str, bytes]) -> list[str]:
    """Name the files of a run folder that are not, byte for byte, those of an undisturbed run."""
    found = results(folder)
    return sorted(n for n in found.keys() | reference.keys() if found.get(n) != reference.get(n))


def torn(folder: Path, but: Path | None = None) -> list[str]:
    """Name the files under a folder that are incomplete under their final name.

    Args:
      folder: a run folder, a cache, or what holds them.
      but: a file that was damaged on purpose, and may still be.
    """
    found = (path for path in _finished(folder) if path not in ((but, *but.parents) if but else ()))
    return [str(path.relative_to(folder)) for path in found if not _is_whole(path)]


def _finished(folder: Path) -> Iterator[Path]:
    """Yield files and checkpoint versions, except those under a temporary name."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).parts
        hidden = any(part.startswith((".", "torn-")) for part in inside)
        if not hidden and path.is_file() and "checkpoints" not in inside:
            yield path
        if not hidden and path.is_dir() and path.name.isdigit() and "checkpoints" in inside:
            yield path


def _is_whole(path: Path) -> bool:
    if path.is_dir():
        return _holds(lambda: checkpoints._open_seal(path))
    readers: dict[str, Callable[[], object]] = {
        ".json": lambda: json.loads(path.read_bytes()),
        ".jsonl": lambda: [json.loads(line) for line in path.read_bytes().splitlines()[:-1]],
        ".parquet": lambda: pq.read_table(io.BytesIO(path.read_bytes())),
        ".npz": lambda: zipfile.ZipFile(path).testzip(),
        ".png": lambda: path.read_bytes().index(b"IEND"),
        ".md": lambda: path.read_bytes().rindex(b"\n", -1),
        ".tex": lambda: path.read_bytes().rindex(b"\n", -1),
        ".csv": lambda: path.read_bytes().rindex(b"\n", -1),
    }
    return _holds(readers.get(path.suffix, lambda: None))


def _holds(read: Callable[[], object]) -> bool:
    try:
        read()
    except Exception:  # a damaged file may make its reader raise anything
        return False
    return True
