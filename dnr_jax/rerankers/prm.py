"""PRM: personalised re-ranking with a transformer over the candidate list.

Pei et al. 2019, arXiv 1904.06813. The tokens are `E_i = h_i + PE_i` with h the fused user and item
state in place of the paper's pre-trained personalised vector (as the DNR paper's group does), the
encoder is `layers` post-norm transformer blocks, and a head gives one logit per candidate.

`matching=True` puts the product of history and candidate into h (`nn.user_state`), which the
paper does not have.
"""

from __future__ import annotations

from dataclasses import dataclass

from flax import linen as nn

from dnr_jax.nn.adapter import wrap
from dnr_jax.nn.attention import Transformer
from dnr_jax.nn.dropout import Drop
from dnr_jax.nn.positions import POSITIONS, ListPositions
from dnr_jax.nn.score_entry import EarlyEntry, ScoredHead
from dnr_jax.nn.trunk import Trunk
from dnr_jax.nn.user_state import Fusion, RequestEncoder
from dnr_jax.settings import knob
from dnr_jax.types import Array, FeatureSpec, Request, Reranker, Task


@dataclass(frozen=True, kw_only=True)
class PRMSettings(Trunk):
    """Knobs of PRM.

    The paper has `positions="rank"`: the model then depends on the scores even with
    `score_entry="none"`. The group's code has "index" and `causal=True`.
    """

    positions: str = knob(
        "none", "none (a set) | rank (of the score) | index (of storage)", one_of=POSITIONS
    )
    causal: bool = knob(False, "a candidate sees only those stored before it")


class PRM(nn.Module):
    """The module behind `prm`.

    The candidate encoder stands in `encode` unless its input depends on the scores (early entry, or
    positions by rank); then it stands in `decode` and runs once per set of scores.
    """

    spec: FeatureSpec
    settings: PRMSettings

    def setup(self) -> None:
        """Make the blocks, in the order in which they run."""
        settings = self.settings
        self.request_encoder = RequestEncoder(self.spec, settings)
        self.fusion = Fusion(settings.width)
        self.early_entry = EarlyEntry(settings.scores)
        self.list_positions = ListPositions(settings.positions)
        self.list_encoder = Transformer(*settings.blocks, causal=settings.causal)
        self.head = ScoredHead(settings.scores, settings.width)

    @property
    def _encoder_reads_scores(self) -> bool:
        return self.settings.scores.early or self.settings.positions == "rank"

    def encode(self, request: Request, *, drop: Drop) -> Array:
        """Return H `[B, N, D]`, or the tokens h where the candidate encoder needs scores."""
        user, items = self.request_encoder(request, drop=drop)
        tokens = self.fusion(user, items, drop=drop)
        if self._encoder_reads_scores:
            return tokens
        tokens = self.list_positions(tokens, None, request.where)
        return self.list_encoder(tokens, request.where, drop=drop)

    def decode(self, memory: Array, scores: Array, where: Array, *, drop: Drop) -> Array:
        """Return the logits `[B, N]`."""
        if not self._encoder_reads_scores:
            return self.head(memory, scores)
        tokens = self.early_entry(memory, scores)
        tokens = self.list_positions(tokens, scores, where)
        return self.head(self.list_encoder(tokens, where, drop=drop), scores)


def prm(task: Task, settings: PRMSettings) -> Reranker:
    """Build PRM (Pei et al. 2019, arXiv 1904.06813)."""
    return wrap(PRM(task.spec, settings), dropout=settings.dropout)
