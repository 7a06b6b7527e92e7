"""PRM: personalised re-ranking with a transformer over the candidate list.

Pei et al. 2019, arXiv 1904.06813. The tokens are `E_i = h_i + PE_i` with h the fused user and item
state in place of the paper's pre-trained personalised vector (as the DNR paper's group does), the
encoder is `layers` post-norm transformer blocks, and a head gives one logit per candidate.
"""

from __future__ import annotations

from flax import linen as nn

from dnr_jax.nn.adapter import wrap
from dnr_jax.nn.attention import Transformer
from dnr_jax.nn.dropout import Drop
from dnr_jax.nn.positions import POSITIONS, ListPositions
from dnr_jax.nn.score_entry import EarlyEntry, ScoredHead, ScoreUse
from dnr_jax.nn.sizes import check_heads, check_positive
from dnr_jax.nn.user_state import Fusion, RequestEncoder
from dnr_jax.types import Array, FeatureSpec, Request, Reranker


class PRM(nn.Module):
    """The module behind `prm`; see there for the attributes.

    The candidate encoder stands in `encode` unless its input depends on the scores (early entry, or
    positions by rank); then it stands in `decode` and runs once per set of scores.
    """

    spec: FeatureSpec
    width: int
    layers: int
    heads: int
    feed_forward: int
    history_layers: int
    positions: str
    causal: bool
    scores: ScoreUse

    def setup(self) -> None:
        """Make the blocks, in the order in which they run."""
        self.request_encoder = RequestEncoder(
            self.spec, self.width, self.history_layers, self.heads, self.feed_forward
        )
        self.fusion = Fusion(self.width)
        self.early_entry = EarlyEntry(self.scores)
        self.list_positions = ListPositions(self.positions)
        self.list_encoder = Transformer(self.layers, self.heads, self.feed_forward, self.causal)
        self.head = ScoredHead(self.scores, self.width)

    @property
    def _encoder_reads_scores(self) -> bool:
        return self.scores.early or self.positions == "rank"

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


def prm(
    spec: FeatureSpec,
    *,
    width: int,
    layers: int,
    heads: int,
    feed_forward: int,
    dropout: float,
    history_layers: int,
    positions: str,
    causal: bool,
    score_entry: str,
    score_place: str,
) -> Reranker:
    """Build PRM (Pei et al. 2019, arXiv 1904.06813).

    Args:
      spec: column names and vocabulary sizes.
      width: D, a multiple of `heads`.
      layers: transformer blocks over the candidates, >= 1.
      heads: attention heads, here and in the history encoder.
      feed_forward: hidden width of each block's FFN.
      dropout: rate in [0, 1).
      history_layers: transformer blocks over the history, >= 1.
      positions: "none" (a permutation-equivariant model), "rank" (the paper: place in the order of
        the scores, so the model depends on them even with `score_entry="none"`) or "index"
        (place in storage, as in the group's code).
      causal: let a candidate see itself and those stored before it only (group variants).
      score_entry: "none", "concatenate", "add" or "weight"; see `nn.score_entry`.
      score_place: "late" (non-linear head), "late_linear" or "early".

    Raises:
      ValueError: a size, rate or name is outside its range.
    """
    check_heads(width, heads)
    check_positive(layers=layers, history_layers=history_layers, feed_forward=feed_forward)
    if positions not in POSITIONS:
        raise ValueError(f"positions {positions!r} are unknown: choose one of {POSITIONS}")
    use = ScoreUse(score_entry, score_place)
    module = PRM(spec, width, layers, heads, feed_forward, history_layers, positions, causal, use)
    return wrap(module, dropout=dropout)
