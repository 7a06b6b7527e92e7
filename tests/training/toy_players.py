"""A two-parameter world for the training tests: every number can be followed by hand."""

import jax
import jax.numpy as jnp

from dnr_jax.objectives import ObjectiveSettings
from dnr_jax.training.optimizers import OptimizerSettings, two_player_optimizer
from dnr_jax.training.step import Game, init_state
from dnr_jax.types import Batch, Noise, Request, Reranker

SETTINGS = OptimizerSettings(
    learning_rate=0.1,
    weight_decay=1e-3,
    clip=5.0,
    b1=0.9,
    b2=0.98,
    eps=1e-6,
    decay_factor=0.5,
    decay_every=7,
)
OPTIMIZER = two_player_optimizer(SETTINGS, SETTINGS, steps_per_epoch=(1, 1))


def batch(requests=12, candidates=5, seed=0):
    rng = jax.random.key(seed)
    score_key, label_key = jax.random.split(rng)
    where = jnp.ones((requests, candidates), bool).at[0, -1].set(False)
    scores = jnp.where(where, jax.random.uniform(score_key, where.shape), 0.0)
    labels = jnp.where(where, jax.random.bernoulli(label_key, scores), 0).astype(jnp.float32)
    request = Request(
        index=jnp.arange(requests, dtype=jnp.uint32),
        user=jnp.zeros((requests, 1), jnp.int32),
        context=jnp.zeros((requests, 0), jnp.int32),
        history=jnp.zeros((requests, 2, 1), jnp.int32),
        history_where=jnp.zeros((requests, 2), bool),
        candidates=jnp.zeros((*where.shape, 1), jnp.int32),
        where=where,
    )
    slate = jnp.full((requests, 3), -1, jnp.int32)
    return Batch(request, scores, labels, where, slate, where.astype(jnp.float32))


def _init(key, request, scores):
    return {"slope": jax.random.normal(key, ()), "bias": jnp.zeros(())}


def _decode(params, memory, scores, *, key=None, train=False):
    return jnp.where(memory, params["slope"] * scores + params["bias"], -1e9)


RERANKER = Reranker(_init, lambda params, request, **_: request.where, _decode)


def _sample(params, key, batch):
    eps = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), batch.labels.shape[1:]))
    drawn = jax.nn.sigmoid(params["gain"] * (batch.labels - 0.5) + eps(batch.request.index))
    return jnp.where(batch.request.where, drawn, 0.0)


NOISE = Noise(lambda key, batch: {"gain": jax.random.normal(key, ())}, _sample)


def divergence(generated, observed, *, labels, where):
    return jnp.square(jnp.mean(generated - observed, where=where))


OBJECTIVE = ObjectiveSettings(lambda_m=0.5, lambda_adv=1.0, lambda_x=2.0)
GAME = Game(RERANKER, NOISE, divergence, own_loss=None, objective=OBJECTIVE)


def state(seed=0, data=None):
    example = batch() if data is None else data
    return init_state(jax.random.key(seed), RERANKER, NOISE, OPTIMIZER, example)
