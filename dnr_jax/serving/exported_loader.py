"""An exported reranker: `Model().rank(requests)`, with jax, numpy and flatbuffers.

encoder.py describes raw requests; their `"scores"` are the first stage's, one per item.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from dnr_jax.data.direct import load

HERE = Path(__file__).resolve().parent


class Model:
    """The model of this folder; raises `ValueError` if one of its files is damaged."""

    def __init__(self) -> None:
        self.about = json.loads((HERE / "export.json").read_text("utf-8"))
        for name, digest in self.about["sha256"].items():
            if hashlib.sha256((HERE / name).read_bytes()).hexdigest() != digest:
                raise ValueError(f"{HERE / name} is damaged: copy the folder again")
        self.encoder = load(HERE / "model" / "encoders", self.about["score"])
        with np.load(HERE / "model" / "parameters.npz", allow_pickle=False) as archive:
            self.parameters = jax.device_put(dict(archive))
        program = export.deserialize(bytearray((HERE / "program.bin").read_bytes()))
        self.program = jax.jit(program.call)

    def scores(self, requests: list[dict[str, Any]]) -> list[np.ndarray]:
        """Score each request's items: a list of float32 [n], higher is better.

        Raises `ValueError` if the model reads first-stage scores and a request has none.
        """
        bare = [n for n, raw in enumerate(requests) if raw.get("scores") is None]
        if bare and self.about["reads_scores"]:
            raise ValueError(f"request {bare[0]} has no 'scores': this model needs one per item")
        sizes = [len(raw["items"]) for raw in requests]
        longest, usual = max(sizes), self.about["candidates"]
        size = usual if longest <= usual else 1 << (longest - 1).bit_length()
        rows = 1 << (len(requests) - 1).bit_length()  # powers of two: few shapes are compiled
        arrays = self.encoder.arrays(requests, size)
        given = [
            [0.0] * n if raw.get("scores") is None else raw["scores"]  # a list, or an array
            for raw, n in zip(requests, sizes, strict=True)
        ]
        inputs = arrays, self.encoder.raw_scores(given, arrays["where"])
        padded = jax.tree.map(
            lambda a: np.pad(a, [(0, rows - len(a)), *[(0, 0)] * (a.ndim - 1)]), inputs
        )
        found = np.asarray(self.program(self.parameters, *padded))
        return [found[row, :n] for row, n in enumerate(sizes)]

    def rank(self, requests: list[dict[str, Any]]) -> list[list[Any]]:
        """Return each request's items, the best first; ties keep the given order."""
        orders = [np.argsort(-own, kind="stable") for own in self.scores(requests)]
        return [[raw["items"][i] for i in o] for raw, o in zip(requests, orders, strict=True)]
