"""Prepared arrays on disk: written in chunks, memory-mapped when read, keyed by a fingerprint.

A prepared folder is complete or absent: it is built under a temporary name and renamed last. Its
name is the hash of everything that went into it (input files, code, options), so a second run
with the same inputs reuses it and any change builds a new one.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dnr_jax.data.signatures import fingerprint
from dnr_jax.types import Batch, FeatureSpec, Request

MANIFEST = "manifest.json"
SPLITS = ("train", "valid", "test")


class Split(NamedTuple):
    """The requests of one split; every array has the leading axis R.

    Attributes:
      batch: numpy arrays, possibly memory-mapped.
      request_id: `int64 [R]`, the raw data set's number of each request, unique in a split.
      positives: `int32 [R]`, positives of the request in all, also outside the candidate pool:
        what an end-to-end ideal ranking would find.
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
      fingerprint: hash of inputs, code and options.
    """

    spec: FeatureSpec
    splits: dict[str, Split]
    item_popularity: np.ndarray
    item_vectors: np.ndarray
    report: dict[str, Any]
    fingerprint: str = ""


class Writer:
    """Appends requests to a folder chunk by chunk, so that memory stays bounded."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._shapes: dict[str, list[int]] = {}
        self._dtypes: dict[str, str] = {}
        folder.mkdir(parents=True)

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
            self._append_array(f"{split}.{name}", array)

    def _append_array(self, name: str, array: np.ndarray) -> None:
        dtype, shape = array.dtype.str, list(array.shape)
        old_dtype, old_shape = self._dtypes.get(name, dtype), self._shapes.get(name)
        if dtype != old_dtype or (old_shape is not None and shape[1:] != old_shape[1:]):
            raise ValueError(
                f"array {name}: this chunk is {dtype}{shape}, earlier ones {old_dtype}{old_shape}"
            )
        with open(self._folder / f"{name}.bin", "ab") as file:
            file.write(np.ascontiguousarray(array).tobytes())
        self._dtypes[name] = dtype
        self._shapes[name] = [shape[0] + (old_shape[0] if old_shape else 0), *shape[1:]]

    def finish(
        self,
        spec: FeatureSpec,
        item_popularity: np.ndarray,
        item_vectors: np.ndarray,
        report: Mapping[str, Any],
    ) -> None:
        """Write the catalogue arrays and, last of all, the manifest that makes the folder valid.

        Raises:
          ValueError: a split of `SPLITS` received no chunk.
        """
        missing = [s for s in SPLITS if f"{s}.request_id" not in self._shapes]
        if missing:
            raise ValueError(f"no requests for split(s) {missing}: all of {SPLITS} are needed")
        self._append_array("item_popularity", np.asarray(item_popularity, np.float32))
        self._append_array("item_vectors", np.asarray(item_vectors, np.float32))
        manifest = {
            "spec": spec._asdict() | {"sizes": dict(spec.sizes)},
            "arrays": {n: [self._dtypes[n], s] for n, s in self._shapes.items()},
            "report": dict(report),
        }
        (self._folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


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
        yield field, np.asarray(getattr(batch.request, field))
    for field in Batch.__dataclass_fields__:
        if field != "request":
            yield field, np.asarray(getattr(batch, field))
    yield "request_id", np.asarray(split.request_id)
    yield "positives", np.asarray(split.positives)
    yield "truth", np.asarray(split.truth)


def _unflatten(arrays: Mapping[str, Any]) -> Split:
    request = Request(**{f: arrays[f] for f in Request.__dataclass_fields__})
    fields = {f: arrays[f] for f in Batch.__dataclass_fields__ if f != "request"}
    batch = Batch(request=request, **fields)
    return Split(batch, arrays["request_id"], arrays["positives"], arrays["truth"])


def _map(path: Path, dtype: str, shape: list[int]) -> np.ndarray:
    expected = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    found = path.stat().st_size if path.exists() else -1
    if found != expected:
        raise ValueError(
            f"prepared array {path} holds {found} bytes, its manifest says {expected}: "
            f"delete {path.parent} and run again to rebuild it"
        )
    if expected == 0:  # an empty file cannot be mapped
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", shape=tuple(shape))


def load(folder: Path) -> Prepared:
    """Memory-map a finished folder.

    Raises:
      ValueError: an array file is missing or torn; the text names the cure.
    """
    manifest = json.loads((folder / MANIFEST).read_text())
    arrays = {n: _map(folder / f"{n}.bin", *meta) for n, meta in manifest["arrays"].items()}
    splits = {}
    for split in SPLITS:
        prefix = split + "."
        own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        splits[split] = _unflatten(own)
    spec = manifest["spec"]
    return Prepared(
        FeatureSpec(
            user=tuple(spec["user"]),
            context=tuple(spec["context"]),
            history=tuple(spec["history"]),
            item=tuple(spec["item"]),
            sizes=spec["sizes"],
        ),
        splits,
        arrays["item_popularity"],
        arrays["item_vectors"],
        manifest["report"],
        folder.name,
    )


def prepare(cache: Path, recipe: Mapping[str, Any], build: Callable[[Writer], None]) -> Prepared:
    """Return the data set of `recipe`, building it only if no finished folder exists.

    Args:
      cache: folder of all prepared data sets.
      recipe: JSON-able; everything the arrays depend on (see `signatures`). Its hash names
        the folder.
      build: fills a `Writer` and calls its `finish`.

    Raises:
      ValueError: what `load` raises; what `build` raises leaves nothing behind.
    """
    folder = cache / fingerprint(recipe)
    if not (folder / MANIFEST).exists():
        temporary = cache / f".{folder.name}-{uuid.uuid4().hex[:8]}"
        try:
            build(Writer(temporary))
            if folder.exists():  # left by a build that was killed half-way through a rename
                shutil.rmtree(folder)
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return load(folder)
