"""Counts of requests and positives in a split's candidate sets, chunk by chunk."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from dnr_jax.data.store import Split


class Tally:
    """Counts requests and positives in a split's candidate sets."""

    def __init__(self) -> None:
        self.written = 0
        self._lists = self._without = self._masked = 0
        self._positives = self._found = 0.0

    def keep(self, chunk: Split, train: bool) -> Split:
        """Count a chunk; if `train`, drop requests without a positive in the pool."""
        inside = np.asarray(chunk.batch.labels).sum(1)
        self._lists += len(inside)
        self._without += int((inside == 0).sum())
        self._found += float(inside.sum())
        self._positives += float(chunk.positives.sum())
        self._masked += int((~np.asarray(chunk.batch.request.where)).sum())
        return jax.tree.map(lambda a: a[inside > 0], chunk) if train else chunk

    def report(self, split: str) -> dict[str, Any]:
        """Return the counts as JSON-able numbers.

        Raises:
          ValueError: nothing can be trained or measured because no request has a positive.
        """
        if not self._found:
            cure = (
                "Raise candidates.size or improve the retriever"
                if self._positives
                else "None has a positive at all: lower what counts as positive, or add data"
            )
            raise ValueError(
                f"no {split} request is left: of {self._lists} lists {self._without} have no "
                f"positive among their candidates. {cure}"
            )
        return {
            "lists": self._lists,
            "requests": self.written,
            "without_positive_in_pool": self._without,
            "dropped": self._lists - self.written,
            "positives_per_list": self._positives / self._lists,
            "recall_of_positives": self._found / max(self._positives, 1.0),
            "masked_candidates": self._masked,
        }
