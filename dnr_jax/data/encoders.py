"""How raw values become feature ids: stored with the data, to encode raw requests later.

0 is padding, 1 is unknown, and known values start at 2.
"""

from __future__ import annotations

import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dnr_jax import sealed
from dnr_jax.data.direct import Encoder, make
from dnr_jax.data.folders import new_folder
from dnr_jax.data.hashing import mix
from dnr_jax.json_files import DamagedError
from dnr_jax.sealed import CURE
from dnr_jax.settings import unknown
from dnr_jax.types import FeatureSpec, Request

UNKNOWN = 1
KNOWN = 2
FILE = "encoders.json"
KEYS = ("spec", "size", "history", "vocabularies", "tables", "transforms")


class Vocabulary(NamedTuple):
    """Maps raw values to feature ids.

    Attributes:
      keys: the known values, sorted: `int64 [n]` or `str [n]`; value number i has id `KNOWN + i`.
      buckets: > 0 = no known values; values are hashed to this many ids, either integers >= 0 by
        `encode` or others by the data set's own code.
    """

    keys: np.ndarray
    buckets: int = 0

    @property
    def size(self) -> int:
        """Number of feature ids, padding and unknown included."""
        return KNOWN + (self.buckets or len(self.keys))

    def encode(self, raw: np.ndarray) -> np.ndarray:
        """Return int32 feature ids >= 1 of values of the keys' kind; unseen values are unknown."""
        if self.buckets:
            known = raw >= 0
            ids = KNOWN + (mix(0, 9, raw) % np.uint64(self.buckets)).astype(np.int64)
        elif len(self.keys) == 0:
            return np.full(raw.shape, UNKNOWN, np.int32)
        elif _close(self.keys, raw):
            return _looked_up(self.keys, raw)
        else:
            place = np.minimum(np.searchsorted(self.keys, raw), len(self.keys) - 1)
            known, ids = self.keys[place] == raw, KNOWN + place
        return np.where(known, ids, UNKNOWN).astype(np.int32)


def _close(keys: np.ndarray, raw: np.ndarray) -> bool:
    """Tell whether a table of all integers in the keys' range is cheaper than binary search."""
    whole = keys.dtype == raw.dtype == np.int64
    return whole and int(keys[-1]) - int(keys[0]) < raw.size


def _looked_up(keys: np.ndarray, raw: np.ndarray) -> np.ndarray:
    low, high = keys[0], keys[-1]
    table = np.full(high - low + 2, UNKNOWN, np.int32)
    table[keys - low] = np.arange(KNOWN, KNOWN + len(keys))
    return table[np.where((raw >= low) & (raw <= high), raw - low, len(table) - 1)]


class Encoders(NamedTuple):
    """Everything that turns a data set's raw requests into arrays.

    Attributes:
      spec: names and vocabulary sizes of the feature columns.
      size: candidates N of a prepared request.
      history: events T of a prepared request.
      vocabularies: by column name.
      tables: encoded features `int32 [ids, columns]` by encoded id, where an id has features.
      transforms: JSON-able numbers that the data set's own features are computed with.
    """

    spec: FeatureSpec
    size: int
    history: int
    vocabularies: Mapping[str, Vocabulary]
    tables: Mapping[str, np.ndarray]
    transforms: Mapping[str, Any]

    @property
    def plain(self) -> bool:
        """Whether raw requests hold only ids; their features are then in `tables`."""
        return bool(self.tables)

    def direct(self) -> Encoder:
        """Make the encoder of raw requests whose types were already checked."""
        keys = {name: words.keys for name, words in self.vocabularies.items()}
        return make(keys, self.transforms, self.history, self.tables)

    def encoded(self, requests: Sequence[Mapping[str, Any]], size: int) -> Encoded:
        """Encode raw requests whose types were already checked; `size`: see `direct.Encoder`."""
        fields: dict[str, Any] = self.direct().arrays(requests, size)
        request = Request(**fields | {"index": np.arange(len(requests), dtype=np.uint32)})
        return Encoded(request, count_unknown(request, self.spec))

    def save(self, folder: Path) -> None:
        """Write everything into a new folder, or nothing at all; an existing folder is kept.

        Raises:
          ValueError: a name that cannot be a file name.
        """
        if folder.exists():
            return
        arrays = {f"keys.{name}": v.keys for name, v in self.vocabularies.items()}
        arrays |= {f"table.{name}": np.asarray(table) for name, table in self.tables.items()}
        with new_folder(folder) as temporary:
            digests = {name: _write(temporary, name, array) for name, array in arrays.items()}
            content = {
                "spec": self.spec._asdict() | {"sizes": dict(self.spec.sizes)},
                "size": self.size,
                "history": self.history,
                "vocabularies": {
                    name: {"buckets": v.buckets, "sha256": digests[f"keys.{name}"]}
                    for name, v in self.vocabularies.items()
                },
                "tables": {name: digests[f"table.{name}"] for name in self.tables},
                "transforms": dict(self.transforms),
            }
            sealed.write(temporary / FILE, content)


class Encoded(NamedTuple):
    """Raw requests as arrays.

    Attributes:
      request: NumPy arrays, in the order of the raw requests; `index` counts them.
      unknown: how often real values of a column have the id `UNKNOWN`, for columns where any do:
        `user.age`, `item.author_id`, `history.item_id`.
      dropped: history events left out because they are not before their request.
    """

    request: Request
    unknown: dict[str, int]
    dropped: int = 0


def load(folder: Path, *, cure: str = CURE) -> Encoders:
    """Read what `Encoders.save` wrote; arrays are memory-mapped once their hash was checked.

    Raises:
      FileNotFoundError: there is no such folder.
      DamagedError: a file is missing, incomplete or changed, or is not what `save` writes; `cure`
        is the remedy that the message gives.
    """
    content = sealed.read(folder / FILE, KEYS, cure=cure)
    try:
        return Encoders(
            spec=read_spec(content["spec"]),
            size=int(content["size"]),
            history=int(content["history"]),
            vocabularies={
                name: Vocabulary(
                    _read(folder, f"keys.{name}", v["sha256"], cure), int(v["buckets"])
                )
                for name, v in content["vocabularies"].items()
            },
            tables={
                name: _read(folder, f"table.{name}", digest, cure)
                for name, digest in content["tables"].items()
            },
            transforms=content["transforms"],
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise DamagedError(
            f"{folder / FILE} differs from what was written ({error!r}): {cure}"
        ) from None


def read_spec(content: Mapping[str, Any]) -> FeatureSpec:
    """Rebuild a spec from its JSON form."""
    columns = {n: tuple(content[n]) for n in FeatureSpec._fields if n != "sizes"}
    return FeatureSpec(**columns, sizes=dict(content["sizes"]))


def _write(folder: Path, name: str, array: np.ndarray) -> str:
    path = _file(folder, name)
    np.save(path, array, allow_pickle=False)
    return sealed.digest(path)


def _read(folder: Path, name: str, digest: str, cure: str) -> np.ndarray:
    path = _file(folder, name)
    try:
        sealed.check(path, digest, cure=cure)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        if isinstance(error, DamagedError):
            raise
        raise DamagedError(f"{path} cannot be read ({error}): {cure}") from None
    return np.asarray(array)


def _file(folder: Path, name: str) -> Path:
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"{name!r} cannot be the name of a file: use letters, digits, _ and -")
    return folder / f"{name}.npy"


def count_unknown(request: Request, spec: FeatureSpec) -> dict[str, int]:
    """Count the values of real users, events and candidates that are unknown; see `Encoded`."""
    present = np.ones(len(request.index), bool)
    parts = [
        ("user", spec.user, request.user, present),
        ("context", spec.context, request.context, present),
        ("history", spec.history, request.history, request.history_where),
        ("item", spec.item, request.candidates, request.where),
    ]
    found: dict[str, int] = {}
    for part, columns, ids, real in parts:
        for number, column in enumerate(columns):
            name, count = f"{part}.{column}", int((ids[..., number][real] == UNKNOWN).sum())
            found[name] = found.get(name, 0) + count  # a list of ids has columns of equal name
    return {name: count for name, count in found.items() if count}


def check_keys(place: str, raw: Any, known: Iterable[str], needed: Sequence[str] = ()) -> None:
    """Refuse a raw record that is not a mapping, lacks a field or has an unknown one.

    Raises:
      ValueError: names the place, the field and the nearest known field.
    """
    if not isinstance(raw, Mapping):
        raise ValueError(f"{place} is a {type(raw).__name__}: it must be a mapping")
    for name in needed:
        if name not in raw:
            raise ValueError(f"{place} has no {name!r}")
    known = set(known)
    for name in raw:
        if name not in known:
            raise ValueError(f"{place}: {unknown('field', str(name), known)}")


def integer(place: str, value: Any, missing: int = -1) -> int:
    """Return a raw integer, or `missing` for None and for values that int64 cannot hold.

    Raises:
      ValueError: another kind of value; the text names its place.
    """
    if value is None:
        return missing
    whole = isinstance(value, float) and value.is_integer()
    if isinstance(value, bool) or not (isinstance(value, numbers.Integral) or whole):
        raise ValueError(f"{place} is {value!r}: it must be an integer")
    return int(value) if -(2**63) <= value < 2**63 else missing


def listed(place: str, value: Any) -> list[Any]:
    """Return a raw list, tuple or array as a list.

    Raises:
      ValueError: any other kind of value.
    """
    if not isinstance(value, list | tuple | np.ndarray):
        raise ValueError(f"{place} is {value!r}: it must be a list")
    return list(value)
