"""An exported reranker: `Model().rank(requests)`, with jax, numpy and flatbuffers.

encoder.py describes raw requests; their `"scores"` are the first stage's, one per item.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from dnr_jax.data.direct import checked_scores, load

HERE = Path(__file__).resolve().parent


class Model:
    """The model of this folder; raises `ValueError` if one of its files is damaged or missing."""

    def __init__(self) -> None:
        self.about = _about()
        for name, digest in self.about["sha256"].items():
            path = HERE / name
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                raise _damage(path)
        self.encoder = load(HERE / "model" / "encoders", self.about["score"])
        with np.load(HERE / "model" / "parameters.npz", allow_pickle=False) as archive:
            self.parameters = jax.device_put(dict(archive))
        program = export.deserialize(bytearray((HERE / "program.bin").read_bytes()))
        self.program = jax.jit(program.call)

    def scores(self, requests: list[dict[str, Any]]) -> list[np.ndarray]:
        """Score each request's items: a list of float32 [n], higher is better.

        Raises `ValueError`, with the request's number, if one is not a mapping, has an unknown key
        or no list of items, or if its scores are not one finite number per item, or are lacking
        and the model reads them.
        """
        for number, raw in enumerate(requests):
            self._check(f"request {number}", raw)
        if not requests:
            return []
        bare = [n for n, raw in enumerate(requests) if raw.get("scores") is None]
        if bare and self.about["reads_scores"]:
            raise ValueError(f"request {bare[0]} has no 'scores': this model needs one per item")
        sizes = [len(raw["items"]) for raw in requests]
        longest, usual = max(sizes), self.about["candidates"]
        size = usual if longest <= usual else 1 << (longest - 1).bit_length()
        rows = 1 << (len(requests) - 1).bit_length()  # powers of two: few shapes are compiled
        arrays = self.encoder.arrays(requests, size)
        given = [
            [0.0] * n
            if raw.get("scores") is None
            else checked_scores(f"request {number}", raw["scores"], n)
            for number, (raw, n) in enumerate(zip(requests, sizes, strict=True))
        ]
        inputs = arrays, self.encoder.raw_scores(given, arrays["where"])
        padded = jax.tree.map(
            lambda a: np.pad(a, [(0, rows - len(a)), *[(0, 0)] * (a.ndim - 1)]), inputs
        )
        found = np.asarray(self.program(self.parameters, *padded))
        return [found[row, :n] for row, n in enumerate(sizes)]

    def rank(self, requests: list[dict[str, Any]]) -> list[list[Any]]:
        """Return each request's items, the best first; ties keep the given order.

        Raises `ValueError` as `scores` does.
        """
        orders = [np.argsort(-own, kind="stable") for own in self.scores(requests)]
        return [[raw["items"][i] for i in o] for raw, o in zip(requests, orders, strict=True)]

    def _check(self, place: str, raw: Any) -> None:
        if not isinstance(raw, Mapping):
            raise ValueError(f"{place} is a {type(raw).__name__}: it must be a mapping")
        unknown = [name for name in raw if name not in self.encoder.fields]
        if unknown:
            known = ", ".join(sorted(self.encoder.fields))
            raise ValueError(f"{place} has an unknown key {unknown[0]!r}: use only {known}")
        items = raw.get("items")
        if not isinstance(items, list | tuple | np.ndarray) or not len(items):
            raise ValueError(f"{place}: items are {items!r}: give a list of one item or more")


def _about() -> dict[str, Any]:
    path = HERE / "export.json"
    try:
        about: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        raise _damage(path) from None
    if not isinstance(about, dict) or not isinstance(about.get("sha256"), dict):
        raise _damage(path)
    return about


def _damage(path: Path) -> ValueError:
    state = "damaged" if path.is_file() else "missing"
    return ValueError(f"{path} is {state}: copy the folder again")
