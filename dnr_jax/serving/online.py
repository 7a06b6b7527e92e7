"""Score raw requests as they arrive, in a few shapes that are compiled in advance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dnr_jax.data.direct import length
from dnr_jax.data.encoders import count_unknown
from dnr_jax.serving import program
from dnr_jax.serving.model import Model, check_direct, with_scores, without_scores
from dnr_jax.serving.shapes import to_power_of_two
from dnr_jax.types import Request

Raw = Mapping[str, Any]
Scored = tuple[list[np.ndarray], Counter[str]]
Finish = Callable[[], Scored]


class Engine:
    """A loaded model for few requests at a time; begin a batch once the previous one has ended.

    Attributes:
      sizes: the compiled list lengths N; a list is padded to the smallest that holds it.
      most: maximum requests per batch; batches are padded to powers of two.

    Args:
      model: a model of a log table or of interactions.
      most: at least 1.
      longest: the longest list that is accepted; None = as in training.

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
                coming, _ = self._give(with_scores([one] * rows, self._model), size)
                coming.block_until_ready()
        return len(self.sizes) * len(self.batches)

    def begin(self, raw: Sequence[Raw]) -> Finish:
        """Begin to score checked raw requests of at most `sizes[-1]` items each.

        Encodes them and passes them to the device. If the model reads scores that are not given,
        the first stage computes them. That takes longer, so it runs when the result is waited for.

        Returns:
          A function that waits for `float32 [n]` of each request's items, and for the number of
          unknown values by column.
        """
        if without_scores(raw, self._model):
            return lambda: self._begin(with_scores(raw, self._model))()
        return self._begin(raw)

    def _begin(self, raw: Sequence[Raw]) -> Finish:
        places = np.searchsorted(self.sizes, [length(one) for one in raw])
        parts = []
        for place in np.unique(places).tolist():
            rows = np.flatnonzero(places == place).tolist()
            parts.append((rows, self._give([raw[row] for row in rows], self.sizes[place])))

        def finish() -> Scored:
            found: list[np.ndarray] = [np.zeros(0, np.float32)] * len(raw)
            unknown = Counter[str]()
            for rows, (coming, counts) in parts:
                unknown.update(counts)
                for row, scores in zip(rows, np.asarray(coming)[: len(rows)], strict=True):
                    found[row] = scores[: length(raw[row])]
            return found, unknown

        return finish

    def _give(self, raw: Sequence[Raw], size: int) -> tuple[jax.Array, dict[str, int]]:
        """Pass requests to the device; return their pending scores and unknown values."""
        arrays = self._encoder.arrays(raw, size)
        scores = [one.get("scores") or [0.0] * length(one) for one in raw]  # 0 = not read
        given = self._encoder.raw_scores(scores, arrays["where"])
        padded = jax.tree.map(to_power_of_two, (arrays, given))
        coming = self._program(self._parameters, *padded)
        request = Request(**arrays)  # type: ignore[arg-type]
        return coming, count_unknown(request, self._spec)


def _sizes(usual: int, longest: int) -> tuple[int, ...]:
    """List the usual size and the powers of two above it that hold lists up to `longest`."""
    sizes = [usual]
    while sizes[-1] < longest:
        sizes.append(1 << sizes[-1].bit_length())
    return tuple(sizes)
