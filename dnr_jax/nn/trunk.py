"""The knobs that rerankers share: sizes, dropout, and how the first-stage score enters."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

from dnr_jax.nn.score_entry import ENTRIES, PLACES, ScoreUse
from dnr_jax.settings import Settings, knob


@dataclass(frozen=True, kw_only=True)
class Trunk(Settings):
    """Base of a learned reranker's settings; a model uses those that apply to its parts.

    `width` is D in shapes. `nn.score_entry` describes how x enters by `score_entry` and
    `score_place`. `matching` is for models on `nn.user_state.RequestEncoder`, whose papers have no
    such term; those that score by an inner product (SASRec, GRU4Rec) have it anyway.
    """

    width: int = knob(128, "of embeddings and hidden layers", at_least=1)
    layers: int = knob(2, "transformer blocks over the candidates", at_least=1, at_most=1000)
    history_layers: int = knob(2, "transformer blocks over the history", at_least=1, at_most=1000)
    heads: int = knob(4, "attention heads; they divide the width", at_least=1)
    feed_forward: int = knob(128, "width inside a transformer block", at_least=1, at_most=10**6)
    dropout: float = knob(0.1, "rate of dropout in training", at_least=0, below=1)
    score_entry: str = knob("concatenate", "how the score joins a candidate", one_of=ENTRIES)
    score_place: str = knob(
        "late", "late (small MLP) | late_linear | early | prior (x plus the model)", one_of=PLACES
    )
    matching: bool = knob(False, "list models read the match of history and candidate, q * e")

    def check(self) -> None:
        """Refuse a width that the heads cannot share evenly."""
        if self.width % self.heads:
            raise ValueError(
                f"width is {self.width}, which {self.heads} heads cannot share: choose a multiple"
            )

    @classmethod
    def on(cls, trunk: Trunk, **own: Any) -> Self:
        """Make settings of this kind with the trunk of another model, with `own` knobs set.

        For models that contain other models: `PRMSettings.on(settings)`.
        """
        return cls(**{field.name: getattr(trunk, field.name) for field in fields(Trunk)}, **own)

    @property
    def blocks(self) -> tuple[int, int, int]:
        """Sizes of the transformer over candidates or lists: layers, heads, feed-forward."""
        return self.layers, self.heads, self.feed_forward

    @property
    def scores(self) -> ScoreUse:
        """Which entry of the score, at which place."""
        return ScoreUse(self.score_entry, self.score_place)
