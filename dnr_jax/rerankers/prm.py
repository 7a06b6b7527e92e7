"""PRM: personalised re-ranking with a transformer over the candidate list.

Pei et al. 2019, arXiv 1904.06813. The tokens are `E_i = h_i + PE_i`, where h is the fused user and
item state in place of the paper's pre-trained personalised vector (as the DNR paper's group does).
The encoder has `layers` post-norm transformer blocks, and a head gives one logit per candidate. The
loss is the binary cross-entropy of the candidates; the paper's is the softmax cross-entropy of the
list (`--config.objective.loss=attention_rank` is close to it).

`pretrained=True` adds the paper's vectors: `E_i = W [h_i, PV_i] + PE_i`. PV_i is the last hidden
state of a click model that is trained first, for half the epochs, and then frozen. Ours is a
pointwise network on the request (`nn.pointwise`) that sees no scores and is trained on the same
requests; the paper uses a model of its platform. h_i, which is made from ids, replaces the paper's
raw features. Under DNR and under `loss=direct` a model is a scorer without stages, so the click
model's states are learned with the rest and not pre-trained.

`matching=True` puts the product of history and candidate into h (`nn.user_state`), which the
paper does not have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax.nn.adapter import Lesson, taught, wrap
from dnr_jax.nn.attention import Transformer
from dnr_jax.nn.dropout import Drop, identity
from dnr_jax.nn.layers import Dense
from dnr_jax.nn.losses import bce
from dnr_jax.nn.pointwise import PointwiseScorer
from dnr_jax.nn.positions import POSITIONS, ListPositions
from dnr_jax.nn.score_entry import EarlyEntry, ScoredHead
from dnr_jax.nn.trunk import Trunk
from dnr_jax.nn.user_state import Fusion, RequestEncoder
from dnr_jax.settings import knob
from dnr_jax.types import Array, Batch, FeatureSpec, Request, Reranker, Task


@dataclass(frozen=True, kw_only=True)
class PRMSettings(Trunk):
    """Knobs of PRM.

    The paper uses `positions="rank"`, with which the model depends on the scores even with
    `score_entry="none"`. The group's code uses "index" and `causal=True`.
    """

    positions: str = knob(
        "none", "none (a set) | rank (of the score) | index (of storage)", one_of=POSITIONS
    )
    causal: bool = knob(False, "a candidate sees only those stored before it")
    pretrained: bool = knob(False, "tokens hold the states of a click model that is trained first")

    @property
    def groups(self) -> tuple[str, ...]:
        """The parameter groups that learn after the click model."""
        use = self.scores
        entry = ("early_entry",) if use.early and use.entry != "weight" else ()
        places = () if self.positions == "none" else ("list_positions",)
        return ("request_encoder", "fusion", "joined", *entry, *places, "list_encoder", "head")


class PRM(nn.Module):
    """The module behind `prm`.

    The candidate encoder runs in `encode` unless its input depends on the scores (early entry, or
    positions by rank). Then it runs in `decode`, once per set of scores.
    """

    spec: FeatureSpec
    settings: PRMSettings

    def setup(self) -> None:
        """Make the blocks, in the order in which they run."""
        settings = self.settings
        self.request_encoder = RequestEncoder(self.spec, settings)
        self.fusion = Fusion(settings.width)
        if settings.pretrained:
            blind = replace(settings, score_entry="none")
            self.click_model = PointwiseScorer(self.spec, blind)
            self.joined = Dense(settings.width)
        self.early_entry = EarlyEntry(settings.scores)
        self.list_positions = ListPositions(settings.positions)
        self.list_encoder = Transformer(*settings.blocks, causal=settings.causal)
        self.head = ScoredHead(settings.scores, settings.width)

    @property
    def _encoder_reads_scores(self) -> bool:
        return self.settings.scores.early or self.settings.positions == "rank"

    def encode(self, request: Request, *, drop: Drop, hold: Drop = identity) -> Array:
        """Return H `[B, N, D]`, or the tokens where the candidate encoder needs scores.

        `hold` is applied to the click model's states: `stop_gradient`, or the identity.
        """
        tokens = self._tokens(request, drop=drop, hold=hold)
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

    def _tokens(self, request: Request, *, drop: Drop, hold: Drop) -> Array:
        """Return h `[B, N, D]`, joined with the click model's states if there is one."""
        user, items = self.request_encoder(request, drop=drop)
        tokens = self.fusion(user, items, drop=drop)
        if not self.settings.pretrained:
            return tokens
        vectors = hold(self.click_model.vectors(request, drop=identity))
        return self.joined(jnp.concatenate([tokens, vectors], axis=-1))

    def run_all(self, request: Request, scores: Array) -> Array:
        """Run everything once, so that `init` makes the click model's head too."""
        clicks = self.click_model(request, scores, drop=identity)
        memory = self.encode(request, drop=identity)
        return clicks + self.decode(memory, scores, request.where, drop=identity)

    def teach_click_model(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute the click model's binary cross-entropy; it reads no scores."""
        logits = self.click_model(batch.request, batch.scores, drop=drop)
        return bce(logits, batch.labels, batch.weights)

    def teach(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute PRM's binary cross-entropy, with the click model frozen."""
        memory = self.encode(batch.request, drop=drop, hold=jax.lax.stop_gradient)
        logits = self.decode(memory, batch.scores, batch.request.where, drop=drop)
        return bce(logits, batch.labels, batch.weights)


def prm(task: Task, settings: PRMSettings) -> Reranker:
    """Build PRM (Pei et al. 2019, arXiv 1904.06813)."""
    module = PRM(task.spec, settings)
    if not settings.pretrained:
        return wrap(module, dropout=settings.dropout)
    return taught(
        module,
        Lesson("click_model", PRM.teach_click_model, ("click_model",), share=0.5),
        Lesson("prm", PRM.teach, settings.groups),
        dropout=settings.dropout,
        run_all=PRM.run_all,
    )
