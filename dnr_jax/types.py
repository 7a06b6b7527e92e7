"""The shared types: requests, batches, models, noise families, divergences and metrics.

Sizes: B batch, N candidates, T history, K shown list (slate), D width, S seeds.
Every array of a `Request` or `Batch` has the leading axis B (or R, all requests of a split).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from flax import struct

Array = jax.Array
Params = Any
Memory = Any


@struct.dataclass
class Request:
    """The input of a reranker; labels and scores are not part of it, so a model cannot leak them.

    Feature columns hold ids of categorical values: 0 is padding, 1 unknown, known values start
    at 2. Column 0 of `user` is the user, column 0 of `history` and `candidates` is the item.

    Attributes:
      index: `uint32 [B]`, the request's own number in its split. Random draws fold it into the
        key, so that they do not depend on batch, order or shard.
      user: `int32 [B, Fu]`, user features.
      context: `int32 [B, Fc]`, request features (weekday, hour); `Fc` may be 0.
      history: `int32 [B, T, Fh]`, the user's events before the request, left-padded, latest last.
      history_where: `bool [B, T]`, True = real event.
      candidates: `int32 [B, N, Fi]`, item features, in a seeded random order.
      where: `bool [B, N]`, True = real candidate. All False in a padding request.
      numbers: `float32 [B, Fn]`, numeric features of user and context, of magnitude about 1; None =
        there are none.
      item_numbers: `float32 [B, N, Gn]`, those of the candidates; None = there are none.
    """

    index: Array
    user: Array
    context: Array
    history: Array
    history_where: Array
    candidates: Array
    where: Array
    numbers: Array | None = None
    item_numbers: Array | None = None


@struct.dataclass
class Batch:
    """A request with its first-stage scores and the user's feedback.

    Attributes:
      request: the model's input.
      scores: `float32 [B, N]` in [0, 1], the retriever's scores x; 0 where `where` is False.
      labels: `float32 [B, N]` in [0, 1], the feedback z; 0 where unexposed or `where` is False.
      exposed: `bool [B, N]`, True = shown to the user.
      slate: `int32 [B, K]`, indices into N of the shown list in display order; -1 = none.
      weights: `float32 [B, N]` >= 0, the weight of each candidate's label. 0 = unjudged: the model
        sees the candidate, but losses and metrics ignore it. 0 where `where` is False.
    """

    request: Request
    scores: Array
    labels: Array
    exposed: Array
    slate: Array
    weights: Array


class FeatureSpec(NamedTuple):
    """Column names of the feature arrays and the size of each column's vocabulary.

    Attributes:
      user, context, history, item: column names of `Request.user`, `.context`, `.history`,
        `.candidates`, in column order. A history column and an item column of the same name
        share one vocabulary, and so one embedding table. A name that occurs several times among
        the columns of a side is a bag: the embeddings of its values are summed.
      sizes: vocabulary size per column name, padding (0) and unknown (1) included.
      numbers, item_numbers: column names of the arrays of these names.
    """

    user: tuple[str, ...]
    context: tuple[str, ...]
    history: tuple[str, ...]
    item: tuple[str, ...]
    sizes: Mapping[str, int]
    numbers: tuple[str, ...] = ()
    item_numbers: tuple[str, ...] = ()


class Task(NamedTuple):
    """What a model may know about the data set before it sees a request.

    Attributes:
      spec: column names and vocabulary sizes.
      slate_size: K >= 1, the length of the shown list.
      item_popularity: `float32 [V]`, training positives of each encoded item; None = not known.
      item_vectors: `float32 [V, d]`, a description of each encoded item; None = not known.
      seed: seed of a model's random draws while it is built.
    """

    spec: FeatureSpec
    slate_size: int = 6
    item_popularity: np.ndarray | None = None
    item_vectors: np.ndarray | None = None
    seed: int = 0


class Init(Protocol):
    """Makes a reranker's parameters from a key and one example batch."""

    def __call__(self, key: Array, request: Request, scores: Array) -> Params: ...


class Encode(Protocol):
    """Everything that does not depend on the scores, computed once per request."""

    def __call__(
        self, params: Params, request: Request, *, key: Array | None = None, train: bool = False
    ) -> Memory: ...


class Decode(Protocol):
    """Logits for one set of scores; called with x and with x'."""

    def __call__(
        self,
        params: Params,
        memory: Memory,
        scores: Array,
        *,
        key: Array | None = None,
        train: bool = False,
    ) -> Array: ...


class Arrange(Protocol):
    """Orders the candidates by building a list: `float32 [B, N]`, higher = shown earlier."""

    def __call__(self, params: Params, memory: Memory, scores: Array) -> Array: ...


class Loss(Protocol):
    """The loss that a stage of training minimises: a float32 scalar of one batch.

    `train=True` switches dropout on. A loss that samples draws from `key`, or from a fixed key if
    there is none.
    """

    def __call__(
        self, params: Params, batch: Batch, *, key: Array | None = None, train: bool = False
    ) -> Array: ...


class Stage(NamedTuple):
    """One part of a training procedure; the parts run one after the other.

    Attributes:
      name: name of its checkpoints and metrics.
      loss: the loss that it minimises; None = L_theta of DNR, or L_direct without noise.
      groups: top-level groups of the parameters that it updates; () = all of them.
      share: its length as a share of `config.train.epochs`, > 0.
      begin: maps the parameters that it starts from, keeping their shapes, for example to copy one
        group to another; applied once, before the first epoch, and not again when a run resumes.
    """

    name: str
    loss: Loss | None
    groups: tuple[str, ...] = ()
    share: float = 1.0
    begin: Callable[[Params], Params] | None = None


class Reranker(NamedTuple):
    """A conditional likelihood q_theta(z | x, u) as three pure functions, and how to train it.

    `decode` returns float32 logits `[B, N]`, `ops.MASKED_LOGIT` where `where` is False.
    `train=True` switches dropout on and needs a key; without one both functions raise
    `ValueError`. With `train=False` the key is ignored.

    Attributes:
      init, encode, decode: the likelihood. These three are all that DNR needs.
      arrange: the order in which a model that builds lists shows them; None = by the logits.
      stages: its own paper's training; () = the binary cross-entropy of the logits.
      log_odds: whether `stages` make sigmoid(logit) an estimate of P(z = 1 | x), which list-wise
        losses and policies do not: a constant added to all logits leaves those unchanged.
    """

    init: Init
    encode: Encode
    decode: Decode
    arrange: Arrange | None = None
    stages: tuple[Stage, ...] = ()
    log_odds: bool = True


class NoiseInit(Protocol):
    """Makes a generator's parameters; `{}` for a heuristic family."""

    def __call__(self, key: Array, batch: Batch) -> Params: ...


class NoiseSample(Protocol):
    """Draws x' ~ p_phi(x | z): `float32 [B, N]` in [0, 1], 0 where `where` is False."""

    def __call__(self, params: Params, key: Array, batch: Batch) -> Array: ...


class Noise(NamedTuple):
    """A generator f_phi of noisy scores.

    `sample` folds each request's own index into the key, so the draw of a request does not depend
    on its batch or shard. It is differentiable in `params`, if the family has any.
    """

    init: NoiseInit
    sample: NoiseSample


class Divergence(Protocol):
    """A distance between the law of generated and of observed scores (float32 scalar, >= 0 up to
    estimation error), differentiable in `generated`.

    Arguments: `generated`, `observed` `float32 [B, N]` in [0, 1]; `labels` `float32 [B, N]`, a
    candidate is positive where > 0.5; `where` `bool [B, N]`, entries where it is False do not
    count.
    """

    def __call__(
        self, generated: Array, observed: Array, *, labels: Array, where: Array
    ) -> Array: ...


class Metric(Protocol):
    """Maps `(logits, labels, where)`, all `[B, N]`, to `(value [B], valid [B])`.

    `value` is float32, the expectation over random orders of tied logits; `valid` is bool, False
    where the metric is undefined for a request (no positive, or for AUC no negative), and `value`
    is then 0.
    """

    def __call__(self, logits: Array, labels: Array, where: Array) -> tuple[Array, Array]: ...


def apply(
    reranker: Reranker,
    params: Params,
    request: Request,
    scores: Array,
    *,
    key: Array | None = None,
    train: bool = False,
) -> Array:
    """Compute `decode(encode(request), scores)`: logits `float32 [B, N]` of a whole reranker."""
    keys = (None, None) if key is None else jax.random.split(key)
    memory = reranker.encode(params, request, key=keys[0], train=train)
    return reranker.decode(params, memory, scores, key=keys[1], train=train)


def rank(reranker: Reranker, params: Params, request: Request, scores: Array) -> Array:
    """Order the candidates as deployed: `float32 [B, N]`, higher = shown earlier.

    These are the logits, unless the model arranges its own lists.
    """
    if reranker.arrange is None:
        return apply(reranker, params, request, scores)
    return reranker.arrange(params, reranker.encode(params, request), scores)
