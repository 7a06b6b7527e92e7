"""A trained retriever as a folder of plain arrays, to score future requests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dnr_jax import retrievers, sealed
from dnr_jax.data import array_files
from dnr_jax.data.folders import new_folder
from dnr_jax.json_files import DamagedError
from dnr_jax.retrievers.retriever import Restore, ScoreCatalogue, State

FILE = "retriever.json"
KEYS = ("name", "settings", "arrays")


def save(folder: Path, name: str, knobs: Mapping[str, Any], state: State) -> None:
    """Write a retriever into a new folder, completely or not at all.

    Args:
      folder: must not exist.
      name: a key of `RETRIEVERS`.
      knobs: its settings, JSON-able.
      state: state of the fitted retriever.

    Raises:
      FileExistsError: there is something at `folder`.
    """
    with new_folder(folder) as temporary:
        arrays = array_files.Appender(temporary)
        for part, array in state.items():
            arrays.append(part, array)
        content = {"name": name, "settings": dict(knobs), "arrays": arrays.described()}
        sealed.write(temporary / FILE, content)


def load(folder: Path, *, cure: str) -> ScoreCatalogue:
    """Return the scores of a retriever that `save` has written.

    Raises:
      FileNotFoundError, DamagedError: see `read`.
    """
    restore, state = read(folder, cure=cure)
    return restore(state)


def read(folder: Path, *, cure: str = sealed.CURE) -> tuple[Restore, State]:
    """Return the `restore` function of a kept retriever, and its arrays, memory-mapped.

    Raises:
      FileNotFoundError: there is no such folder.
      DamagedError: a file is missing, torn or changed; `cure` says what helps.
    """
    content = sealed.read(folder / FILE, KEYS, cure=cure)
    try:
        entries = array_files.entries(content["arrays"])
        array_files.check_sizes(folder, entries, cure=cure)
        array_files.check_hashes(folder, entries, cure=cure)
        built = retrievers.build(content["name"], **content["settings"])
        if built.restore is None:
            raise TypeError(f"{content['name']} cannot be kept")
        return built.restore, array_files.mapped(folder, entries)
    except (AttributeError, KeyError, TypeError, FileNotFoundError) as error:
        raise DamagedError(
            f"{folder} was changed or damaged after it was written ({error}): {cure}"
        ) from None
