"""Learned noise: a two-layer network that turns label, fresh noise, candidate and user into x'."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.layers import Dense
from dnr_jax.noise.mixing import Draw, check_lambda_c, draw_batch, mix
from dnr_jax.types import Array, Batch, FeatureSpec, Noise, Params, Request


class Generator(nn.Module):
    """A two-layer perceptron on [label, fresh noise, item embedding, user embedding].

    The first layer is written as a sum over its three groups of inputs: the user's part is
    computed once a request, and the two scalars start with as much say as the embeddings. The
    embeddings are the generator's own, so that it serves every reranker.

    Attributes:
      users, items: vocabulary sizes of user and item ids, padding and unknown included.
      width: of the hidden layer.
      embedding_width: of both embeddings.
    """

    users: int
    items: int
    width: int
    embedding_width: int

    @nn.compact
    def __call__(self, request: Request, labels: Array, eps: Array) -> Array:
        """Return raw outputs `float32 [B, N]`."""
        item = nn.Embed(self.items, self.embedding_width, name="item")(request.candidates[..., 0])
        user = nn.Embed(self.users, self.embedding_width, name="user")(request.user[:, 0])
        scalars = jnp.stack([labels, eps], axis=-1)
        hidden = (
            Dense(self.width, name="scalar_layer")(scalars)
            + Dense(self.width, use_bias=False, name="item_layer")(item)
            + Dense(self.width, use_bias=False, name="user_layer")(user)[:, None]
        )
        return Dense(1, name="output_layer")(nn.relu(hidden))[..., 0]


def _sigmoid(raw: Array, where: Array) -> Array:
    return jnp.where(where, jax.nn.sigmoid(raw), 0.0)


OUTPUTS: dict[str, Callable[[Array, Array], Array]] = {"sigmoid": _sigmoid, "min_max": ops.min_max}


def learned_mix(
    *,
    spec: FeatureSpec,
    base: Draw,
    lambda_c: float,
    width: int,
    embedding_width: int,
    output: str,
) -> Noise:
    """Make the form that learns the noise of Eq. 4: x' = mix(z, output(MLP)).

    The paper (arXiv 2509.18736) leaves inputs and normalisation open. `output="min_max"` with
    `lambda_c = 1/11` is the form of the group's later public code, min_max(z + 0.1 min_max(MLP)),
    here with z and fresh noise among the inputs as well.

    Args:
      spec: vocabulary sizes of the ids.
      base: family of the fresh noise.
      lambda_c: share of the learned noise, in (0, 1].
      width: of the hidden layer.
      embedding_width: of the generator's own embeddings.
      output: key of `OUTPUTS`: how raw outputs come to [0, 1], each alone or per request.

    Raises:
      ValueError: `lambda_c` is outside (0, 1] or `output` is unknown.
    """
    check_lambda_c(lambda_c)

    def finish(value: Array, batch: Batch) -> Array:
        return mix(batch.labels, value, batch.request.where, lambda_c=lambda_c)

    return _learned(_network(spec, width, embedding_width), base, output, finish)


def learned_direct(
    *, spec: FeatureSpec, base: Draw, width: int, embedding_width: int, output: str
) -> Noise:
    """Make the form that learns x' itself (`lambda_c = 1`): x' = output(MLP).

    No scaling follows, so that the generator can place scores freely in [0, 1]; under
    `output="sigmoid"` every candidate has a gradient of its own.

    Args:
      spec: vocabulary sizes of the ids.
      base: family of the fresh noise.
      width: of the hidden layer.
      embedding_width: of the generator's own embeddings.
      output: key of `OUTPUTS`.

    Raises:
      ValueError: `output` is unknown.
    """
    return _learned(_network(spec, width, embedding_width), base, output, lambda value, _: value)


def _network(spec: FeatureSpec, width: int, embedding_width: int) -> Generator:
    users, items = spec.sizes[spec.user[0]], spec.sizes[spec.item[0]]
    return Generator(users=users, items=items, width=width, embedding_width=embedding_width)


def _learned(
    network: Generator, base: Draw, output: str, finish: Callable[[Array, Batch], Array]
) -> Noise:
    if output not in OUTPUTS:
        raise ValueError(f"unknown generator output {output!r}: known are {sorted(OUTPUTS)}")

    @jax.jit  # op by op it takes twice as long
    def init(key: Array, batch: Batch) -> Params:
        return network.init(key, batch.request, batch.labels, batch.labels)["params"]

    def sample(params: Params, key: Array, batch: Batch) -> Array:
        eps = draw_batch(base, key, batch)
        raw = network.apply({"params": params}, batch.request, batch.labels, eps)
        return finish(OUTPUTS[output](jnp.asarray(raw), batch.request.where), batch)

    return Noise(init, sample)
