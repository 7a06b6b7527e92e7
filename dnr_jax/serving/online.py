"""Scores raw requests as they come, in a few shapes that are compiled before the first one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dnr_jax.data.encoders import count_unknown
from dnr_jax.serving import program
from dnr_jax.serving.model import Model, check_direct, to_power_of_two, with_scores
from dnr_jax.types import Request

Raw = Mapping[str, Any]


class Engine:
    """A loaded model for few requests at a time; use it from one thread.

    Attributes:
      sizes: the list lengths N that are compiled; a list takes the least that holds it.
      most: requests of one batch; batches are padded to powers of two.

    Args:
      model: of a log table or of interactions.
      most: at least 1.
      longest: the longest list that is taken; None = as in training.

    Raises:
      ValueError: see `model.check_direct`.
    """

    def __init__(self, model: Model, *, most: int, longest: int | None = None):
        check_direct(model, "served")
        self.sizes = _sizes(model.encoders.size, longest or model.encoders.size)
        self.most = most
        self._model = model
        self._spec, self._plain = model.encoders.spec, model.encoders.plain
        self._encoder = model.encoders.direct()
        self._program = jax.jit(program.of(model))
        self._parameters = jax.device_put(program.parameters_of(model))

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes that are compiled."""
        return tuple(2**i for i in range((self.most - 1).bit_length() + 1))

    def warm(self) -> int:
        """Compile every shape, and return their number."""
        one = {"items": [None if self._plain else {"item_id": None}]}
        for size in self.sizes:
            for rows in self.batches:
                self._score(self._scored([one] * rows), size)
        return len(self.sizes) * len(self.batches)

    def score(self, raw: Sequence[Raw]) -> tuple[list[np.ndarray], Counter[str]]:
        """Score checked raw requests of at most `sizes[-1]` items each.

        Scores that the model reads and that are not given are the first stage's.

        Returns:
          `float32 [n]` of each request's items, and how many values were unknown, by column.
        """
        raw = self._scored(raw)
        places = np.searchsorted(self.sizes, [len(one["items"]) for one in raw])
        found: list[np.ndarray] = [np.zeros(0, np.float32)] * len(raw)
        unknown = Counter[str]()
        for place in np.unique(places).tolist():
            chosen = np.flatnonzero(places == place).tolist()
            scores, counts = self._score([raw[i] for i in chosen], self.sizes[place])
            unknown += counts
            for row, i in enumerate(chosen):
                found[i] = scores[row][: len(raw[i]["items"])]
        return found, unknown

    def _scored(self, raw: Sequence[Raw]) -> list[Raw]:
        """Give each request scores: its own, the first stage's, or 0 where none are read."""
        return [
            one if one.get("scores") is not None else {**one, "scores": [0.0] * len(one["items"])}
            for one in with_scores(raw, self._model)
        ]

    def _score(self, raw: Sequence[Raw], size: int) -> tuple[np.ndarray, Counter[str]]:
        arrays = self._encoder.arrays(raw, size)
        given = self._encoder.raw_scores([one["scores"] for one in raw], arrays["where"])
        padded = jax.tree.map(to_power_of_two, (arrays, given))
        coming = self._program(self._parameters, *padded)
        request = Request(**arrays)  # type: ignore[arg-type]
        unknown = Counter(count_unknown(request, self._spec))  # while the device computes
        return np.asarray(coming), unknown


def _sizes(usual: int, longest: int) -> tuple[int, ...]:
    """List the usual size and the powers of two above it that hold lists up to `longest`."""
    sizes = [usual]
    while sizes[-1] < longest:
        sizes.append(1 << sizes[-1].bit_length())
    return tuple(sizes)
