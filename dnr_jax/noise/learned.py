"""Learned noise: a two-layer network maps label, fresh noise, candidate and user to x'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.layers import Dense
from dnr_jax.nn.tables import Embed
from dnr_jax.noise.mixing import Draw, Mixing, draw_batch, mix
from dnr_jax.settings import Settings, knob
from dnr_jax.types import Array, Batch, FeatureSpec, Noise, Params, Request, Task


def _sigmoid(raw: Array, where: Array) -> Array:
    return jnp.where(where, jax.nn.sigmoid(raw), 0.0)


OUTPUTS: dict[str, Callable[[Array, Array], Array]] = {"sigmoid": _sigmoid, "min_max": ops.min_max}


@dataclass(frozen=True, kw_only=True)
class GeneratorSettings(Settings):
    """Settings of a learned generator."""

    width: int = knob(64, "of the hidden layer", at_least=1)
    embedding_width: int = knob(16, "of its own item and user embeddings", at_least=1)
    output: str = knob(
        "sigmoid", "raw outputs to [0, 1]: each alone, or min_max per request", one_of=OUTPUTS
    )


@dataclass(frozen=True, kw_only=True)
class LearnedMixSettings(GeneratorSettings, Mixing):
    """Settings of the generator that learns the noise of Eq. 4."""


@dataclass(frozen=True, kw_only=True)
class BoundedSettings(GeneratorSettings):
    """Settings of the generator that moves the observed scores."""

    radius: float = knob(0.1, "the most that a score is moved", above=0, at_most=1)


class Generator(nn.Module):
    """A two-layer perceptron on [label, fresh noise, item embedding, user embedding].

    The first layer is written as a sum over its three groups of inputs. So the user's part is
    computed once per request, and the two scalars start with as much weight as the embeddings. The
    embeddings are the generator's own, so it works with every reranker.

    Attributes:
      spec: vocabulary sizes of user and item ids.
      settings: widths of the layer and of the embeddings.
    """

    spec: FeatureSpec
    settings: GeneratorSettings

    @nn.compact
    def __call__(self, request: Request, labels: Array, eps: Array) -> Array:
        """Return raw outputs `float32 [B, N]`."""
        sizes, width = self.spec.sizes, self.settings.width
        users, items = sizes[self.spec.user[0]], sizes[self.spec.item[0]]
        embedded = self.settings.embedding_width
        item = Embed(items, embedded, name="item")(request.candidates[..., 0])
        user = Embed(users, embedded, name="user")(request.user[:, 0])
        scalars = jnp.stack([labels, eps], axis=-1)
        hidden = (
            Dense(width, name="scalar_layer")(scalars)
            + Dense(width, use_bias=False, name="item_layer")(item)
            + Dense(width, use_bias=False, name="user_layer")(user)[:, None]
        )
        return Dense(1, name="output_layer")(nn.relu(hidden))[..., 0]


def learned_mix(task: Task, base: Draw, settings: LearnedMixSettings) -> Noise:
    """Make the form that learns the noise of Eq. 4: x' = mix(z, output(MLP)).

    The paper (arXiv 2509.18736) leaves inputs and normalisation open. `output="min_max"` with
    `lambda_c = 1/11` is the form of the group's later public code, min_max(z + 0.1 min_max(MLP)),
    except that here z and fresh noise are inputs too.

    Args:
      task: vocabulary sizes of the ids.
      base: family of the fresh noise.
      settings: the network's settings, and the share of the learned noise.
    """

    def finish(value: Array, batch: Batch) -> Array:
        return mix(batch.labels, value, batch.request.where, lambda_c=settings.lambda_c)

    return _learned(task, base, settings, finish)


def learned_direct(task: Task, base: Draw, settings: GeneratorSettings) -> Noise:
    """Make the form that learns x' itself (`lambda_c = 1`): x' = output(MLP).

    No scaling follows, so the generator can place scores freely in [0, 1]. With
    `output="sigmoid"` every candidate has its own gradient.

    Args:
      task: vocabulary sizes of the ids.
      base: family of the fresh noise.
      settings: the network's settings.
    """
    return _learned(task, base, settings, lambda value, _: value)


def learned_bounded(task: Task, base: Draw, settings: BoundedSettings) -> Noise:
    """Make the adversary that stays near x: x' = clip(x + r (2 output(MLP) - 1), 0, 1).

    No score moves further than r, so the law of x' lies in the infinity-Wasserstein ball of radius
    r around that of x. This is the adversary of distributionally robust training (Sinha et al.
    2018, arXiv 1710.10571, who use the 2-Wasserstein distance and a penalty). It is not in the DNR
    paper, whose generator does not see x.

    Args:
      task: vocabulary sizes of the ids.
      base: family of the fresh noise.
      settings: the network's settings, and the radius.
    """

    def finish(value: Array, batch: Batch) -> Array:
        moved = batch.scores + settings.radius * (2 * value - 1)
        return jnp.where(batch.request.where, jnp.clip(moved, 0.0, 1.0), 0.0)

    return _learned(task, base, settings, finish)


def _learned(
    task: Task, base: Draw, settings: GeneratorSettings, finish: Callable[[Array, Batch], Array]
) -> Noise:
    network, output = Generator(task.spec, settings), OUTPUTS[settings.output]

    @jax.jit  # twice as fast as op by op
    def init(key: Array, batch: Batch) -> Params:
        return network.init(key, batch.request, batch.labels, batch.labels)["params"]

    def sample(params: Params, key: Array, batch: Batch) -> Array:
        eps = draw_batch(base, key, batch)
        raw = network.apply({"params": params}, batch.request, batch.labels, eps)
        return finish(output(jnp.asarray(raw), batch.request.where), batch)

    return Noise(init, sample)
