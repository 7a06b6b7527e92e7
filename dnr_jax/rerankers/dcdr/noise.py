"""The two kinds of noise of DCDR (Lin et al. 2024) on lists, and the law of a step back.

A state R is a list `int32 [K]`, candidates in slots; -1 = an empty slot, which stays empty. Steps
count from 1, and step t has the rate beta_t. A denoiser gives g `float32 [K, N]`, what each slot
of R_t gains from each candidate. The law of a step back follows from g and the noise:

- Swaps: with probability beta_t two candidates change places. They are drawn from all M pairs of
  which at least one is in the list; M = K (K - 1) / 2 + K (N - K), 279 for 6 of 50. By Bayes,

      p(R' | R_t) ~ q(R_t | R') exp(sum_k g_k(R'_k) - g_k(R_tk)),

  where the gains of a list are its log-density before the step, up to a constant.
- Tokens: each slot is refilled independently with probability beta_t, by any of n candidates. With
  softmax(g) the guess of the slot's first occupant (Austin et al. 2021, D3PM, arXiv 2107.03006),

      p(a' | a_t) = sum_a q(a' | a_t, a_0 = a) softmax(g)(a).

All functions take one list; use `jax.vmap` for more.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dnr_jax import ops
from dnr_jax.types import Array

# Keeps logarithms of 0 finite: with abar_0 = 1 the probability of a replacement is 0.
_TINY = 1e-30


class Rates(NamedTuple):
    """The rates of one step of a schedule: scalars, or arrays over many steps.

    Attributes:
      beta: beta_t, the probability of a change at the step.
      before: abar_{t-1}, the product of 1 - beta over the steps before it.
    """

    beta: Array
    before: Array


def rates_of(betas: Array) -> Rates:
    """Return the rates of all steps: `[T]` each."""
    kept = jnp.cumprod(1.0 - betas)
    return Rates(betas, jnp.concatenate([jnp.ones(1), kept[:-1]]))


def possible_swaps(places: Array, where: Array) -> Array:
    """Mark the candidates that slot k may be swapped with, each swap once: `bool [K, N]`.

    They are the candidates outside the list and those in a later slot.

    Args:
      places: R, `int32 [K]`.
      where: `bool [N]`.
    """
    standing = (places[:, None] == jnp.arange(where.shape[0])[None]).astype(jnp.int32)
    passed = jnp.cumsum(standing, axis=0) > 0
    return (places >= 0)[:, None] & where[None] & ~passed


def swap(places: Array, move: Array, candidates: int) -> Array:
    """Put candidate `move % N` into slot `move // N`; its occupant takes the candidate's place.

    Args:
      places: R, `int32 [K]`.
      move: `int32`; K N = no move.
      candidates: N.
    """
    slot, item = move // candidates, move % candidates
    occupant = places[jnp.minimum(slot, places.shape[0] - 1)]
    moved = jnp.where(places == item, occupant, places)
    moved = jnp.where(jnp.arange(places.shape[0]) == slot, item, moved)
    return jnp.where(slot < places.shape[0], moved, places)


def draw_swap(shares: Array, places: Array, where: Array, beta: Array) -> tuple[Array, Array]:
    """Take one step of the noise; return the next list and the move that undoes it.

    Args:
      shares: `float32 [2]` in [0, 1): whether to swap, and which of the possible swaps.
      places: R, `int32 [K]`.
      where: `bool [N]`.
      beta: probability of a swap, if any is possible.
    """
    possible = possible_swaps(places, where).reshape(-1)
    stay, candidates = possible.size, where.shape[0]
    drawn = _nth_true(possible, shares[1])
    happens = (shares[0] < beta) & possible.any()
    slot = drawn // candidates
    back = slot * candidates + places[slot]
    after = swap(places, jnp.where(happens, drawn, stay), candidates)
    return after, jnp.where(happens, back, stay)


def noise_by_swaps(
    key: Array, start: Array, where: Array, rates: Rates, step: Array
) -> tuple[Array, Array]:
    """Draw R_1..R_t; return R_t `[K]` and the last move back, one-hot `[K N + 1]`.

    Args:
      key: typed key.
      start: R_0, `int32 [K]`.
      where: `bool [N]`.
      rates: rates of all steps.
      step: t, from 1.
    """
    stay = len(start) * where.shape[0]

    def advance(
        state: tuple[Array, Array], now: tuple[Array, Array, Array]
    ) -> tuple[tuple[Array, Array], None]:
        number, beta, shares = now
        drawn = draw_swap(shares, state[0], where, beta)
        return jax.tree.map(lambda a, b: jnp.where(number <= step, a, b), drawn, state), None

    total = len(rates.beta)
    now = (jnp.arange(1, total + 1), rates.beta, jax.random.uniform(key, (total, 2)))
    (noisy, back), _ = jax.lax.scan(advance, (start, jnp.asarray(stay, start.dtype)), now)
    return noisy, jax.nn.one_hot(back, stay + 1) * (start >= 0).any()


def swap_gains(gains: Array, places: Array) -> Array:
    """Compute what each swap changes in sum_k g_k(R_k): `float32 [K, N]`.

    `g_k(i) - g_k(o)` for slot k with occupant o; if i was in slot j, plus `g_j(o) - g_j(i)`.
    """
    standing = (places[:, None] == jnp.arange(gains.shape[1])[None]).astype(gains.dtype)
    of_places = gains[:, jnp.maximum(places, 0)]  # [slot, whose occupant]
    own = jnp.diagonal(of_places)[:, None]
    returned = (of_places - own).T @ standing
    change: Array = gains - own + returned
    return change


def swap_log_probabilities(gains: Array, places: Array, where: Array, rates: Rates) -> Array:
    """Compute log p of all K N swaps and, last, of no change."""
    possible = possible_swaps(places, where)
    prior = jnp.log(rates.beta) - jnp.log(jnp.maximum(possible.sum(), 1))
    moves = ops.mask_logits(prior + swap_gains(gains, places), possible)
    return jax.nn.log_softmax(jnp.append(moves.reshape(-1), jnp.log1p(-rates.beta)))


def noise_by_tokens(
    key: Array, start: Array, where: Array, rates: Rates, step: Array
) -> tuple[Array, Array]:
    """Draw a_t given a_0 in every slot; return R_t `[K]` and `q(a_{t-1} | a_t, a_0)` `[K, N]`.

    The posteriors of the slots have equal weight and together sum to 1. The arguments are those of
    `noise_by_swaps`.
    """
    shares = jax.random.uniform(key, (len(start), 2))
    now = Rates(*(a[step - 1] for a in rates))
    drawn = jax.vmap(_nth_true, (None, 0))(where, shares[:, 1]).astype(start.dtype)
    filled = start >= 0
    kept = (shares[:, 0] < (1.0 - now.beta) * now.before) | ~filled
    noisy = jnp.where(kept, start, drawn)
    posterior = token_posterior(noisy, start, where, now) / jnp.maximum(filled.sum(), 1)
    return noisy, jnp.where(filled[:, None], posterior, 0.0)


def token_posterior(noisy: Array, start: Array, where: Array, rates: Rates) -> Array:
    """Compute `q(a' | a_t, a_0) ~ q(a_t | a') q(a' | a_0)`: `float32 [K, N]`.

    Args:
      noisy: a_t, `int32 [K]`.
      start: a_0, `int32 [K]`.
      where: `bool [N]`.
      rates: rates of step t.
    """
    joint = _chance(noisy, where, 1.0 - rates.beta) * _chance(start, where, rates.before)
    total = joint.sum(axis=-1, keepdims=True)
    return joint / jnp.where(total > 0, total, 1.0)


def token_log_probabilities(gains: Array, places: Array, where: Array, rates: Rates) -> Array:
    """Compute log p of every candidate in every slot: `float32 [K, N]`."""
    kept = (1.0 - rates.beta) * rates.before
    real = jnp.broadcast_to(where[None], gains.shape)
    # log of softmax(g)(a_0) / q(a_t | a_0), and of the sum over a_0 of q(a' | a_0) times it
    guessed = ops.masked_log_softmax(gains, real) - _log(_chance(places, where, kept))
    guessed = ops.mask_logits(guessed, real)
    every = jax.nn.logsumexp(guessed, axis=-1, keepdims=True)
    fresh = (1.0 - rates.before) / jnp.maximum(where.sum(), 1)
    summed = jnp.logaddexp(_log(rates.before) + guessed, _log(fresh) + every)
    return ops.mask_logits(_log(_chance(places, where, 1.0 - rates.beta)) + summed, real)


def _chance(tokens: Array, where: Array, kept: Array) -> Array:
    """Compute `kept [a = token] + (1 - kept) / n` for real candidates a, else 0: `[K, N]`."""
    real = where.astype(jnp.float32)[None]
    same = (tokens[:, None] == jnp.arange(where.shape[0])[None]).astype(jnp.float32)
    return real * (kept * same + (1.0 - kept) / jnp.maximum(real.sum(), 1.0))


def _log(values: Array) -> Array:
    return jnp.log(jnp.maximum(values, _TINY))


def _nth_true(possible: Array, share: Array) -> Array:
    """Return the index of the True entry number `floor(share * count)`; 0 if there is none."""
    places = jnp.cumsum(possible.astype(jnp.int32))
    wanted = jnp.floor(share * places[-1]).astype(jnp.int32)
    return jnp.argmax(places > wanted).astype(jnp.int32)
