"""PIER: orders of a page proposed by hashing, and the one with the highest predicted clicks kept.

Shi et al. 2023, arXiv 2302.03487. Pages are the lists of K items that the user saw before. The page
to be ordered has the K best candidates by a base score b:

- FPSM (`page_orders`) proposes the orders whose hashes are nearest to those of the user's pages.
- OCPM (`page_model`) predicts the click-through rate of every item of a page in its context: by
  attention within the page (OAU), of the page to the user's pages (TAU), and the base score.
- `L = L_base + BCE(shown page) - CONTRAST (mean rate of the nearest - mean rate of the farthest
  orders)`, with the embeddings of the orders' items and b held fixed.

The base scorer, which PIER takes as given, is ours: PRM's list encoder, and TAU of each candidate
to the user's pages. Its logits are those of `decode`, the likelihood q_theta(z | x). It reads x by
its score entry, and L_base is its binary cross-entropy. The OCPM reads x through b.

The authors order a given page of 5, not the best K of N. Here the proposals always include the base
order, so the shown order is never predicted to be worse, and the contrast is over every fourth of
the 20 orders at each end. `page_orders` and `page_model` name further deviations.

The mean rate gives early places no more weight than late ones. Where clicks do not depend on the
place (MovieLens), it hardly separates orders. The displayed list then has little better NDCG than
the base scorer's best K in random order; use the logits there.

`matching=True` puts the product of history and candidate into e and h (`nn.user_state`), which the
paper does not have.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn import slates
from dnr_jax.nn.adapter import Lesson, taught
from dnr_jax.nn.attention import Transformer
from dnr_jax.nn.dropout import Drop, identity
from dnr_jax.nn.history_tokens import HistoryRequestEncoder
from dnr_jax.nn.list_evaluator import list_value, slate_labels
from dnr_jax.nn.losses import bce
from dnr_jax.nn.score_entry import EarlyEntry, ScoredHead
from dnr_jax.nn.trunk import Trunk
from dnr_jax.nn.user_state import Fusion
from dnr_jax.rerankers.pier import page_orders as fpsm
from dnr_jax.rerankers.pier.page_model import History, PageModel, target_attention
from dnr_jax.types import Array, Batch, FeatureSpec, Request, Reranker, Task

# The authors' number of orders at each end, and their weight of the contrast.
PROPOSALS = 20
CONTRAST = 0.01
# Training uses every fourth of them: all 40 pages would cost several times the rest of a step.
STRIDE = 4


class PageMemory(NamedTuple):
    """The part of the model's state that does not depend on the scores.

    Attributes:
      hidden: input of the base head `[B, N, 2 D]`, or h `[B, N, D]` where the entry is early.
      items: item encodings e `float32 [B, N, D]`.
      history: the user's pages.
    """

    hidden: Array
    items: Array
    history: History


class PIER(nn.Module):
    """The module behind `pier`."""

    spec: FeatureSpec
    settings: Trunk
    slate_size: int

    def setup(self) -> None:
        """Make the base scorer and the OCPM, which share the encodings of items and pages."""
        settings = self.settings
        self.request_encoder = HistoryRequestEncoder(self.spec, settings)
        self.fusion = Fusion(settings.width)
        self.early_entry = EarlyEntry(settings.scores)
        self.list_encoder = Transformer(*settings.blocks, causal=False)
        self.head = ScoredHead(settings.scores, settings.width)
        self.pages = PageModel(settings.width, self.slate_size, settings.heads)

    def encode(self, request: Request, *, drop: Drop) -> PageMemory:
        """Return all that does not depend on the scores."""
        user, items, met, columns = self.request_encoder.parts(request, drop=drop)
        history = self.pages.remember(met, columns, request.history_where, drop=drop)
        tokens = self.fusion(user, items, drop=drop)
        if not self.settings.scores.early:
            tokens = self._attend(tokens, history, request.where, drop=drop)
        return PageMemory(tokens, items, history)

    def _attend(self, tokens: Array, history: History, where: Array, *, drop: Drop) -> Array:
        states = self.list_encoder(tokens, where, drop=drop)
        interest = target_attention(states, history.pages, history.where)
        return jnp.concatenate([states, interest], axis=-1)

    def decode(self, memory: PageMemory, scores: Array, where: Array, *, drop: Drop) -> Array:
        """Return the base logits `[B, N]`."""
        hidden = memory.hidden
        if self.settings.scores.early:
            hidden = self.early_entry(hidden, scores)
            hidden = self._attend(hidden, memory.history, where, drop=drop)
        return self.head(hidden, scores)

    def arrange(self, memory: PageMemory, scores: Array, where: Array) -> Array:
        """Show the proposed order of the base scorer's best K with the highest mean rate."""
        logits = self.decode(memory, scores, where, drop=identity)
        page = slates.top_list(logits, where, self.slate_size)
        count = min(PROPOSALS, len(fpsm.page_orders(self.slate_size)))
        nearest, _ = self.pages.propose(memory.items, memory.history, page, count)
        base = jax.nn.sigmoid(logits)
        clicks = self.pages(memory.items, base, memory.history, nearest.lists, drop=identity)
        values = jnp.where(nearest.where, list_value(clicks, nearest.lists), -jnp.inf)
        return slates.score_list(slates.keep_best(nearest.lists, values), logits, where)

    def teach(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute L."""
        where = batch.request.where
        memory = self.encode(batch.request, drop=drop)
        logits = self.decode(memory, batch.scores, where, drop=drop)
        base = jax.lax.stop_gradient(jax.nn.sigmoid(logits))
        shown = self.pages(memory.items, base, memory.history, batch.slate[:, None], drop=drop)
        fit = bce(logits, batch.labels, batch.weights) + bce(shown[:, 0], *slate_labels(batch))
        page = slates.top_list(jax.lax.stop_gradient(logits), where, self.slate_size)
        return fit - CONTRAST * self._contrast(memory, base, page, drop=drop)

    def _contrast(self, memory: PageMemory, base: Array, page: Array, *, drop: Drop) -> Array:
        count = max(1, min(PROPOSALS, len(fpsm.page_orders(self.slate_size)) // 2))
        items = jax.lax.stop_gradient(memory.items)
        ends = [
            fpsm.Proposals(end.lists[:, ::STRIDE], end.where[:, ::STRIDE])
            for end in self.pages.propose(items, memory.history, page, count)
        ]
        both = jnp.concatenate([end.lists for end in ends], axis=1)
        rates = jax.nn.sigmoid(self.pages(items, base, memory.history, both, drop=drop))
        # Without pages all orders are equally near.
        known = memory.history.where.any(axis=1)[:, None, None]
        near, far = (
            ops.weighted_mean(part, (end.lists >= 0) & end.where[..., None] & known)
            for part, end in zip(jnp.split(rates, 2, axis=1), ends, strict=True)
        )
        return near - far


def pier(task: Task, settings: Trunk) -> Reranker:
    """Build PIER (Shi et al. 2023, arXiv 2302.03487).

    All parts are trained at once, as in the paper. The user's pages are the history cut into lists
    of K from its end. They are the pages shown before if the history holds all shown items. A user
    without history has none; then the orders that follow the base order are proposed. The first six
    places are permuted in all 720 orders; the items of later places keep the base order.

    `layers` is the number of blocks over the candidates in the base scorer; within a page there is
    one block. TAU has one head, whatever `heads` is.
    """
    return taught(
        PIER(task.spec, settings, task.slate_size),
        Lesson("train", PIER.teach),
        dropout=settings.dropout,
        arrange=PIER.arrange,
    )
