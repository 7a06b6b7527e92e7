"""Caser: convolutions over the latest events and a user vector, matched by inner product.

Tang and Wang 2018, arXiv 1809.07426. M `[window, D]` holds the latest events, one per row. Vertical
filters weight its rows, horizontal filters slide over it; `w = ReLU(W [o_v, o_h])`,
`v = W' [w, user]`, `s_i = v . E[i]`.

Deviations: history and candidates share one item table (the paper has a second, of width 2D, for
the candidates). What only the history has (feedback) is added to the events, and `user` is the sum
of all user features, where the paper has the id alone. The filters have no bias, so padding has no
effect. The targets are the candidates
of one request with their labels (binary cross-entropy), whereas the paper slides the window over
each user's events and samples negatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from flax import linen as nn

from dnr_jax.nn.adapter import wrap
from dnr_jax.nn.dropout import Drop
from dnr_jax.nn.embeddings import FeatureEmbedding
from dnr_jax.nn.layers import Dense
from dnr_jax.nn.score_entry import ProductHead
from dnr_jax.nn.trunk import Trunk
from dnr_jax.settings import knob
from dnr_jax.types import Array, FeatureSpec, Request, Reranker, Task


@dataclass(frozen=True, kw_only=True)
class CaserSettings(Trunk):
    """Knobs of Caser; of the shared sizes it uses only `width`."""

    window: int = knob(5, "L, number of latest events that are read", at_least=1)
    vertical: int = knob(4, "filters that weigh the events of the window", at_least=1)
    horizontal: int = knob(8, "filters of each height 1 to L that slide over them", at_least=1)


class Filters(nn.Module):
    """Caser's two kinds of filters over one window of events.

    Attributes:
      vertical: number of filters `[L, 1]`, each a weighted sum of the L rows; no activation.
      horizontal: number of filters `[h, D]` of each height h = 1 ... L; ReLU, then the maximum over
        the L - h + 1 positions.
    """

    vertical: int
    horizontal: int

    @nn.compact
    def __call__(self, window: Array) -> tuple[Array, Array]:
        """Map M `[B, L, D]` to `o_v [B, vertical D]` and `o_h [B, L horizontal]`."""
        length = window.shape[1]
        rows = self.param(
            "vertical_kernel", nn.initializers.lecun_normal(), (length, self.vertical)
        )
        weighed = jnp.einsum("bld,lv->bvd", window, rows)
        heights = range(1, length + 1)
        slides = [nn.Conv(self.horizontal, (h,), padding="VALID", use_bias=False) for h in heights]
        peaks = [nn.relu(slide(window)).max(axis=1) for slide in slides]
        return weighed.reshape(window.shape[0], -1), jnp.concatenate(peaks, axis=-1)


class Caser(nn.Module):
    """The module behind `caser`."""

    spec: FeatureSpec
    settings: CaserSettings

    def setup(self) -> None:
        """Make the blocks, in the order in which they run."""
        width = self.settings.width
        self.embedding = FeatureEmbedding(self.spec, width)
        self.filters = Filters(self.settings.vertical, self.settings.horizontal)
        self.events = Dense(width)
        self.state = Dense(width)
        self.head = ProductHead(self.settings.scores, width)

    def encode(self, request: Request, *, drop: Drop) -> tuple[Array, Array]:
        """Return v `[B, D]` and the candidates' embeddings `[B, N, D]`."""
        parts = self.embedding(request)
        latest = latest_rows(parts.history_items + parts.history_events, self.settings.window)
        pooled = jnp.concatenate(self.filters(latest), axis=-1)
        events = drop(nn.relu(self.events(pooled)))
        return self.state(jnp.concatenate([events, parts.user], axis=-1)), parts.items

    def decode(
        self, memory: tuple[Array, Array], scores: Array, where: Array, *, drop: Drop
    ) -> Array:
        """Return the logits `[B, N]`."""
        return self.head(*memory, scores)


def latest_rows(events: Array, count: int) -> Array:
    """Cut the last `count` rows of `events [B, T, D]`, with zero rows in front if T is smaller."""
    missing = max(count - events.shape[1], 0)
    return jnp.pad(events, ((0, 0), (missing, 0), (0, 0)))[:, -count:]


def caser(task: Task, settings: CaserSettings) -> Reranker:
    """Build Caser (Tang and Wang 2018, arXiv 1809.07426)."""
    return wrap(Caser(task.spec, settings), dropout=settings.dropout)
