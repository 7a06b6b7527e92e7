"""Caser: convolutions over the latest events and a user vector, matched by inner product.

Tang and Wang 2018, arXiv 1809.07426. M `[window, D]` holds the latest events, one a row. Vertical
filters weigh its rows, horizontal filters slide over it; `w = ReLU(W [o_v, o_h])`,
`v = W' [w, user]`, `s_i = v . E[i]`. Where we deviate: one item table for history and candidates
(the paper has a second, of width 2D, for the candidates); the filters have no bias, so padding
stays silent; and the candidates of one request, with their labels (binary cross-entropy), are the
targets, where the paper slides the window over each user's events and samples negatives.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from dnr_jax.nn.adapter import wrap
from dnr_jax.nn.dropout import Drop
from dnr_jax.nn.embeddings import FeatureEmbedding
from dnr_jax.nn.layers import Dense
from dnr_jax.nn.score_entry import ProductHead, ScoreUse
from dnr_jax.nn.sizes import check_positive
from dnr_jax.types import Array, FeatureSpec, Request, Reranker


class Filters(nn.Module):
    """Caser's two kinds of filters over one window of events.

    Attributes:
      vertical: how many filters `[L, 1]`, each a weighted sum of the L rows; no activation.
      horizontal: how many filters `[h, D]` of each height h = 1 ... L; ReLU, then the maximum over
        the L - h + 1 places.
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
    """The module behind `caser`; see there for the attributes."""

    spec: FeatureSpec
    width: int
    window: int
    vertical: int
    horizontal: int
    scores: ScoreUse

    def setup(self) -> None:
        """Make the blocks, in the order in which they run."""
        self.embedding = FeatureEmbedding(self.spec, self.width)
        self.filters = Filters(self.vertical, self.horizontal)
        self.events = Dense(self.width)
        self.state = Dense(self.width)
        self.head = ProductHead(self.scores, self.width)

    def encode(self, request: Request, *, drop: Drop) -> tuple[Array, Array]:
        """Return v `[B, D]` and the candidates' embeddings `[B, N, D]`."""
        parts = self.embedding(request)
        latest = latest_rows(parts.history_items + parts.history_events, self.window)
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


def caser(
    spec: FeatureSpec,
    *,
    width: int,
    window: int,
    vertical: int,
    horizontal: int,
    dropout: float,
    score_entry: str,
    score_place: str,
) -> Reranker:
    """Build Caser (Tang and Wang 2018, arXiv 1809.07426).

    Args:
      spec: column names and vocabulary sizes.
      width: D.
      window: L, how many of the latest events it reads; the rest of the history is not seen.
      vertical: filters over the rows of the window.
      horizontal: filters of each height from 1 to `window`.
      dropout: rate in [0, 1), on w.
      score_entry: "none", "concatenate", "add" or "weight"; see `nn.score_entry.ProductHead`.
      score_place: "late" (non-linear head), "late_linear" or "early".

    Raises:
      ValueError: a size, rate or name is outside its range.
    """
    check_positive(width=width, window=window, vertical=vertical, horizontal=horizontal)
    use = ScoreUse(score_entry, score_place)
    module = Caser(spec, width, window, vertical, horizontal, use)
    return wrap(module, dropout=dropout)
