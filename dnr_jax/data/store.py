"""Prepared arrays on disk: written in chunks, memory-mapped when read, keyed by a fingerprint.

A prepared folder is complete or absent: it is built under a temporary name and renamed last. Its
name is the hash of everything that went into it (input files, code, options), so a second run
with the same inputs reuses it and any change builds a new one. Every array has a stored hash,
checked when a process first opens the folder; a damaged folder is rebuilt. The seconds that
building took are in a separate file, so all other files depend on the inputs alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dnr_jax import durable, sealed
from dnr_jax.data import array_files
from dnr_jax.data import encoders as encoders_
from dnr_jax.data.encoders import Encoders
from dnr_jax.data.folders import alone, new_folder
from dnr_jax.data.signatures import fingerprint
from dnr_jax.json_files import DamagedError
from dnr_jax.sealed import CURE
from dnr_jax.types import Batch, FeatureSpec, Request

MANIFEST = "manifest.json"
TIMINGS = "timings.json"
ENCODERS = "encoders"
RETRIEVER = "retriever"
_LOG = logging.getLogger(__name__)
_checked: set[Path] = set()  # folders whose arrays this process has hashed
SPLITS = ("train", "valid", "test")


class Split(NamedTuple):
    """The requests of one split; every array has the leading axis R.

    Attributes:
      batch: numpy arrays, possibly memory-mapped.
      request_id: `int64 [R]`, the raw data set's number of each request, unique in a split.
      positives: `int32 [R]`, all positives of the request, including those outside the candidate
        pool: what an ideal ranking of the whole catalogue would find.
      truth: `float32 [R, N]`, true relevance (simulators only; NaN where unknown). For analysis;
        no model sees it.
    """

    batch: Batch
    request_id: np.ndarray
    positives: np.ndarray
    truth: np.ndarray


class Prepared(NamedTuple):
    """A data set ready for training.

    Attributes:
      spec: names and vocabulary sizes of the feature columns.
      splits: `Split` by name, exactly the names in `SPLITS`.
      item_popularity: `float32 [V]`, training interactions of each encoded item id.
      item_vectors: `float32 [V, d]`, item descriptions for diversity (rows need not be unit norm).
      report: JSON-able findings of the loader (row counts, drops, probes), shown to the user.
      encoders: how raw values became feature ids, to encode later raw requests.
      fingerprint: hash of inputs, code and options.
      timings: seconds that building took, by part; not determined by the inputs.
      retriever: what the first stage learned from all training lists, by name, if it can be
        stored.
    """

    spec: FeatureSpec
    splits: dict[str, Split]
    item_popularity: np.ndarray
    item_vectors: np.ndarray
    report: dict[str, Any]
    encoders: Encoders
    fingerprint: str = ""
    timings: Mapping[str, float] = {}
    retriever: Mapping[str, np.ndarray] = {}


class Writer:
    """Appends requests to a folder chunk by chunk, so memory stays bounded."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._arrays = array_files.Appender(folder)

    def append(self, split: str, chunk: Split) -> None:
        """Add the requests of `chunk` to `split`; later chunks must agree in dtypes and widths.

        Raises:
          ValueError: the split is not in `SPLITS`; a score or label is NaN or outside [0, 1]; or a
            chunk's shape or dtype differs from the first chunk's.
        """
        if split not in SPLITS:
            raise ValueError(f"split {split!r} is not one of {SPLITS}")
        _check(split, chunk)
        for name, array in _flatten(chunk):
            self._arrays.append(f"{split}.{name}", array)

    def write_retriever(self, state: Mapping[str, np.ndarray]) -> None:
        """Store what the first stage has learned."""
        for name, array in state.items():
            self._arrays.append(f"{RETRIEVER}.{name}", array)

    def write_timings(self, **seconds: float) -> None:
        """Store the seconds that each part of the work took, beside the arrays."""
        sealed.write(self._folder / TIMINGS, seconds)

    def finish(
        self,
        encoders: Encoders,
        item_popularity: np.ndarray,
        item_vectors: np.ndarray,
        report: Mapping[str, Any],
    ) -> None:
        """Write the encoders, the catalogue arrays and, last of all, the manifest.

        Raises:
          ValueError: a split of `SPLITS` received no chunk.
        """
        missing = [s for s in SPLITS if f"{s}.request_id" not in self._arrays]
        if missing:
            raise ValueError(f"no requests for split(s) {missing}: all of {SPLITS} are needed")
        self._arrays.append("item_popularity", np.asarray(item_popularity, np.float32))
        self._arrays.append("item_vectors", np.asarray(item_vectors, np.float32))
        encoders.save(self._folder / ENCODERS)
        manifest = {"arrays": self._arrays.described(), "report": dict(report)}
        sealed.write(self._folder / MANIFEST, manifest)


def _check(split: str, chunk: Split) -> None:
    """Refuse scores and labels that no loss or metric could use, naming the first bad one."""
    where = np.asarray(chunk.batch.request.where)
    for name in ("scores", "labels"):
        values = np.asarray(getattr(chunk.batch, name))
        bad = np.argwhere(where & ~((values >= 0) & (values <= 1)))  # NaN fails both comparisons
        if len(bad):
            row, place = bad[0]
            raise ValueError(
                f"{split}: request {chunk.request_id[row]} has {name[:-1]} "
                f"{values[row, place]:g} at candidate {place}; {name} must lie in [0, 1]. "
                "Check the column it comes from, or scale it"
            )


def _flatten(split: Split) -> Iterable[tuple[str, np.ndarray]]:
    """Name every array of a split: request fields, batch fields, then the split's own."""
    batch = split.batch
    for field in Request.__dataclass_fields__:
        array = getattr(batch.request, field)
        if array is not None:
            yield field, np.asarray(array)
    for field in Batch.__dataclass_fields__:
        if field != "request":
            yield field, np.asarray(getattr(batch, field))
    yield "request_id", np.asarray(split.request_id)
    yield "positives", np.asarray(split.positives)
    yield "truth", np.asarray(split.truth)


def _unflatten(arrays: Mapping[str, Any]) -> Split:
    needed = [f for f in Request.__dataclass_fields__ if f not in ("numbers", "item_numbers")]
    request = Request(
        **{f: arrays[f] for f in needed},
        numbers=arrays.get("numbers"),
        item_numbers=arrays.get("item_numbers"),
    )
    fields = {f: arrays[f] for f in Batch.__dataclass_fields__ if f != "request"}
    batch = Batch(request=request, **fields)
    return Split(batch, arrays["request_id"], arrays["positives"], arrays["truth"])


def load(folder: Path) -> Prepared:
    """Memory-map a finished folder.

    Raises:
      FileNotFoundError: there is no such folder.
      DamagedError: a file is missing, incomplete or changed, or the manifest is not valid.
    """
    manifest = sealed.read(folder / MANIFEST, ("arrays", "report"))
    try:
        entries = array_files.entries(manifest["arrays"])
        array_files.check_sizes(folder, entries)
        if folder.resolve() not in _checked:
            array_files.check_hashes(folder, entries)
        arrays = array_files.mapped(folder, entries)
        encoders = encoders_.load(folder / ENCODERS)
        prepared = Prepared(
            encoders.spec,
            {split: _unflatten(_of(split, arrays)) for split in SPLITS},
            arrays["item_popularity"],
            arrays["item_vectors"],
            dict(manifest["report"]),
            encoders,
            folder.name,
            _timings(folder),
            _of(RETRIEVER, arrays),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise DamagedError(
            f"{folder / MANIFEST} differs from what was written ({error!r}): {CURE}"
        ) from None
    except FileNotFoundError as error:
        raise DamagedError(f"{error.filename} is missing: {CURE}") from None
    _checked.add(folder.resolve())
    return prepared


def _timings(folder: Path) -> dict[str, float]:
    path = folder / TIMINGS
    return sealed.read(path, ()) if path.exists() else {}  # logged data has no timed part


def _of(part: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    prefix = f"{part}."
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def prepare(cache: Path, recipe: Mapping[str, Any], build: Callable[[Writer], None]) -> Prepared:
    """Return the data set of `recipe`, building it only if no finished folder exists.

    With several processes, one builds and the others wait for it.

    Args:
      cache: folder of all prepared data sets.
      recipe: JSON-able; everything the arrays depend on (see `signatures`). Its hash is the name
        of the folder.
      build: fills a `Writer` and calls its `finish`; what it raises leaves nothing behind.
    """
    folder = cache / fingerprint(recipe)
    found = _load_if_whole(folder)
    if found is not None:
        return found
    with alone(folder):
        found = _load_if_whole(folder)  # another process may have built it meanwhile
        if found is not None:
            return found
        durable.remove(folder)
        with new_folder(folder) as temporary:
            build(Writer(temporary))
    return load(folder)


def _load_if_whole(folder: Path) -> Prepared | None:
    if not folder.exists():
        return None
    try:
        return load(folder)
    except (DamagedError, FileNotFoundError) as error:
        _LOG.warning("prepared data is damaged and is rebuilt: %s", error)
        return None
