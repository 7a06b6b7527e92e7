"""Discrete diffusion of lists: a denoiser, and a beam of lists that steps back through the noise.

The noise, the law of a step back and the terms used here are defined in `noise`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.attention import Transformer
from dnr_jax.nn.dropout import Drop, grouped, identity
from dnr_jax.nn.layers import Dense
from dnr_jax.nn.slates import take_items
from dnr_jax.nn.step_embedding import StepEmbedding
from dnr_jax.nn.trunk import Trunk
from dnr_jax.rerankers.dcdr.noise import (
    Rates,
    noise_by_swaps,
    noise_by_tokens,
    rates_of,
    swap,
    swap_log_probabilities,
    token_log_probabilities,
)
from dnr_jax.types import Array

# Feedback of a slot: 0, 1, or not known (unjudged, or hidden from the denoiser).
LIKED, UNKNOWN = 1, 2


class Process(NamedTuple):
    """One way to diffuse a list; "moves" are its steps back.

    Attributes:
      noise: `(key, R_0 [K], where [N], rates of all steps, t) -> (R_t [K], target)`; the target
        weights the moves from R_t and sums to 1 (to 0 for an empty list).
      log_probabilities: `(g [K, N], R_t [K], where [N], rates) -> log p` of every move, in the
        shape of the target; near `ops.MASKED_LOGIT` where a move is impossible.
      propose: `(log_probabilities [W, ...], lists [W, K], totals [W])` to the W most probable next
        lists and their totals; a total near `ops.MASKED_LOGIT` means that there are fewer.
    """

    noise: Callable[[Array, Array, Array, Rates, Array], tuple[Array, Array]]
    log_probabilities: Callable[[Array, Array, Array, Rates], Array]
    propose: Callable[[Array, Array, Array], tuple[Array, Array]]


class Denoiser(nn.Module):
    """Transformer over `h_{l_k} + p_k + c_k + s_t`, and `g_k(i) = (W_q o_k) . (W_k h_i) / sqrt(D)`.

    Attributes:
      trunk: sizes.
      total: T, for the embedding s_t of the step.
    """

    trunk: Trunk
    total: int

    @nn.compact
    def __call__(
        self, items: Array, lists: Array, condition: Array, steps: Array, *, drop: Drop
    ) -> Array:
        """Return g of W lists per request, `float32 [B, W, K, N]`.

        Args:
          items: h, `float32 [B, N, D]`.
          lists: `int32 [B, W, K]`.
          condition: wanted feedback, `int32 [B, K]`, 0, `LIKED` or `UNKNOWN`.
          steps: t, `int32 [B]`.
          drop: dropout.
        """
        width, size = items.shape[-1], lists.shape[-1]
        initial = nn.initializers.normal(0.02)
        places = self.param("places", initial, (size, width))
        feedback = self.param("feedback", initial, (3, width))
        step = StepEmbedding(width, self.total)(steps, items.dtype)[:, None]
        known = places[None] + jnp.take(feedback, condition, axis=0) + step
        flat = lists.reshape(-1, size)
        tokens = (take_items(items, lists) + known[:, None]).reshape(*flat.shape, width)
        encoder = Transformer(*self.trunk.blocks, causal=False)
        encoded = encoder(tokens, flat >= 0, drop=grouped(drop, lists.shape[1]))
        encoded = encoded.reshape(*lists.shape, width)
        queries = Dense(width, name="slot")(encoded)
        keys = Dense(width, name="item")(items)
        return jnp.einsum("bwkd,bnd->bwkn", queries, keys) / jnp.sqrt(width)


class ListDiffusion(nn.Module):
    """The noise of lists and its reversal by a `Denoiser`.

    Attributes:
      process: the kind of noise.
      betas: beta_1..beta_T.
      condition_dropout: share of training requests whose feedback the denoiser does not see.
      beam: W, lists kept at most at every step back.
      trunk: sizes of the denoiser.
    """

    process: Process
    betas: tuple[float, ...]
    condition_dropout: float
    beam: int
    trunk: Trunk

    def setup(self) -> None:
        """Make the denoiser."""
        self.denoiser = Denoiser(self.trunk, len(self.betas))

    def rates(self) -> Rates:
        """Return the rates of all steps."""
        return rates_of(jnp.asarray(self.betas, jnp.float32))

    def loss(
        self, keys: Array, items: Array, where: Array, lists: Array, condition: Array, *, drop: Drop
    ) -> Array:
        """Compute the cross-entropy of a step back at a random t; a mean over requests with a list.

        Args:
          keys: typed keys `[B]`.
          items: h, `float32 [B, N, D]`.
          where: `bool [B, N]`.
          lists: R_0, `int32 [B, K]`.
          condition: its feedback, `int32 [B, K]`; see `Denoiser`.
          drop: dropout.
        """
        rates, total = self.rates(), len(self.betas)

        def draw(key: Array, start: Array, real: Array, told: Array) -> tuple[Array, ...]:
            when, how, whether = jax.random.split(key, 3)
            step = jax.random.randint(when, (), 1, total + 1)
            hide = jax.random.bernoulli(whether, self.condition_dropout)
            noisy, target = self.process.noise(how, start, real, rates, step)
            return step, noisy, target, jnp.where(hide, UNKNOWN, told)

        steps, noisy, target, told = jax.vmap(draw)(keys, lists, where, condition)
        gains = self.denoiser(items, noisy[:, None], told, steps, drop=drop)[:, 0]
        now = Rates(*(a[steps - 1] for a in rates))
        found = jax.vmap(self.process.log_probabilities)(gains, noisy, where, now)
        losses = -(target * found).reshape(len(target), -1).sum(axis=-1)
        return ops.weighted_mean(losses, (lists >= 0).any(axis=-1))

    def search(self, items: Array, where: Array, start: Array) -> tuple[Array, Array]:
        """Step back T times from the lists `start` `[B, K]`, with 1 as all wanted feedback.

        Returns:
          All lists seen, the start first, `int32 [B, 1 + T W, K]`, and `bool [B, 1 + T W]`, False
          where the beam had fewer lists.
        """
        count, size = start.shape
        liked = jnp.full(start.shape, LIKED)

        def back(
            module: ListDiffusion, beam: tuple[Array, Array], now: tuple[Array, Rates]
        ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
            step, rates = now
            steps = jnp.full(count, step)
            gains = module.denoiser(items, beam[0], liked, steps, drop=identity)
            one = partial(step_back, module.process)
            beam = jax.vmap(one, (0, 0, 0, 0, None))(gains, *beam, where, rates)
            return beam, (beam[0], beam[1] > ops.MASKED_LOGIT / 2)

        lists = jnp.broadcast_to(start[:, None], (count, self.beam, size))
        totals = jnp.where(jnp.arange(self.beam) == 0, 0.0, ops.MASKED_LOGIT)
        first = (lists, jnp.broadcast_to(totals[None], lists.shape[:2]))
        shared = partial(nn.scan, variable_broadcast="params", split_rngs={"params": False})
        scan = shared(back, out_axes=1, reverse=True)
        now = (jnp.arange(1, len(self.betas) + 1), self.rates())
        seen, real = (a.reshape(count, -1, *a.shape[3:]) for a in scan(self, first, now)[1])
        seen = jnp.concatenate([start[:, None], seen], axis=1)
        return seen, jnp.pad(real, [(0, 0), (1, 0)], constant_values=True)


def propose_swaps(log_probabilities: Array, lists: Array, totals: Array) -> tuple[Array, Array]:
    """Return the W best children of W lists, one swap (or none) away from their parents."""
    moves = log_probabilities.shape[-1]
    best, chosen = _best(totals[:, None] + log_probabilities)
    candidates = (moves - 1) // lists.shape[-1]
    made = jax.vmap(swap, (0, 0, None))(lists[chosen // moves], chosen % moves, candidates)
    return made, best


def propose_tokens(log_probabilities: Array, lists: Array, totals: Array) -> tuple[Array, Array]:
    """Fill one slot after another with candidates not yet in the new list; keep the W best lists.

    All W lists have the same empty slots, and a candidate for every other slot.
    """
    candidates = log_probabilities.shape[-1]
    column = jnp.arange(candidates)[None]

    def fill(
        state: tuple[Array, Array, Array], now: tuple[Array, Array, Array]
    ) -> tuple[tuple[Array, Array, Array], None]:
        made, origin, totals = state
        rows, filled, slot = now
        used = (made[:, :, None] == column[None]).any(axis=1)
        options = jnp.where(used, ops.MASKED_LOGIT, rows[origin])
        # An empty slot has only one option, stored in column 0.
        options = jnp.where(filled, options, jnp.where(column == 0, 0.0, ops.MASKED_LOGIT))
        best, chosen = _best(totals[:, None] + options)
        parent = chosen // candidates
        item = jnp.where(filled, chosen % candidates, -1).astype(made.dtype)
        here = (jnp.arange(made.shape[1]) == slot)[None]
        return (jnp.where(here, item[:, None], made[parent]), origin[parent], best), None

    width, size = lists.shape
    start = (jnp.full_like(lists, -1), jnp.arange(width), totals)
    now = (jnp.swapaxes(log_probabilities, 0, 1), lists[0] >= 0, jnp.arange(size))
    made, _, best = jax.lax.scan(fill, start, now)[0]
    return made, best


def step_back(
    process: Process, gains: Array, lists: Array, totals: Array, where: Array, rates: Rates
) -> tuple[Array, Array]:
    """Take one step back from W lists to the W most probable next lists.

    Args:
      process: the kind of noise.
      gains: g, `float32 [W, K, N]`.
      lists: `int32 [W, K]`.
      totals: their log-probabilities, `float32 [W]`; `ops.MASKED_LOGIT` = no such list.
      where: `bool [N]`.
      rates: rates of the step.

    Returns:
      Lists and totals. A list that two parents lead to is kept once, with its higher total; its
      other place among the W stays empty.
    """
    found = jax.vmap(process.log_probabilities, (0, 0, None, None))(gains, lists, where, rates)
    lists, totals = process.propose(found, lists, totals)
    same = (lists[:, None] == lists[None]).all(axis=-1)
    repeated = jnp.tril(same, k=-1).any(axis=-1)
    return lists, jnp.where(repeated, ops.MASKED_LOGIT, totals)


def _best(totals: Array) -> tuple[Array, Array]:
    """Return the W highest of `[W, M]`, highest first, and their indices among the W M."""
    return jax.lax.top_k(totals.reshape(-1), len(totals))


PERMUTATION = Process(noise_by_swaps, swap_log_probabilities, propose_swaps)
TOKEN = Process(noise_by_tokens, token_log_probabilities, propose_tokens)
