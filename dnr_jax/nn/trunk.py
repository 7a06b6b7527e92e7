"""The knobs that rerankers share: sizes, dropout, and how the first-stage score enters."""

from __future__ import annotations

from dataclasses import dataclass

from dnr_jax.nn.score_entry import ENTRIES, PLACES, ScoreUse
from dnr_jax.settings import Settings, knob


@dataclass(frozen=True, kw_only=True)
class Trunk(Settings):
    """Base of a learned reranker's settings; a model reads those that its parts have."""

    width: int = knob(128, "of embeddings and hidden layers", at_least=1)
    layers: int = knob(2, "transformer blocks over the candidates", at_least=1)
    history_layers: int = knob(2, "transformer blocks over the history", at_least=1)
    heads: int = knob(4, "attention heads; they divide the width", at_least=1)
    feed_forward: int = knob(128, "width inside a transformer block", at_least=1)
    dropout: float = knob(0.1, "rate of dropout in training", at_least=0, below=1)
    score_entry: str = knob("concatenate", "how the score joins a candidate", one_of=ENTRIES)
    score_place: str = knob(
        "late", "late (small MLP) | late_linear (one slope) | early", one_of=PLACES
    )

    def check(self) -> None:
        """Refuse a width that the heads cannot share evenly."""
        if self.width % self.heads:
            raise ValueError(
                f"width is {self.width}, which {self.heads} heads cannot share: choose a multiple"
            )

    @property
    def scores(self) -> ScoreUse:
        """Which entry of the score, at which place."""
        return ScoreUse(self.score_entry, self.score_place)
