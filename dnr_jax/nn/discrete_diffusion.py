"""Discrete diffusion of lists (DCDR-style): forward noise, its inverse, and a beam step back.

A state is a list `int32 [..., K]`, candidates in slots; -1 = an empty slot, which stays empty. Two
processes share one interface, `Process`:
- PERMUTATION: with probability beta_t, one uniformly drawn swap of two candidates, at least one of
  them in a slot. K (K - 1) / 2 + K (N - K) swaps: 279 for 6 of 50.
- TOKEN: with probability beta_t each slot is replaced by a uniformly drawn candidate.

Steps count from 1, as in t = 1..T; `betas` is `float32 [T]`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.attention import Transformer
from dnr_jax.nn.diffusion import StepEmbedding
from dnr_jax.nn.dropout import Drop
from dnr_jax.nn.lists import take_items
from dnr_jax.types import Array


class Process(NamedTuple):
    """One way to diffuse lists.

    Attributes:
      noise: `(key, start [K], where [N], step, betas) -> (R_t [K], target)` of one request; the
        target is a distribution over the steps back, like the last axes of `log_probabilities`.
      log_probabilities: `(logits [B, W, K, N], lists [B, W, K], where [B, N])` to `log p` of every
        step back, `ops.MASKED_LOGIT` for an impossible one.
      propose: `(log_probabilities, lists [B, W, K], totals [B, W])` to the W best next lists and
        their totals; a total near `ops.MASKED_LOGIT` means that there are fewer.
    """

    noise: Callable[[Array, Array, Array, Array, Array], tuple[Array, Array]]
    log_probabilities: Callable[[Array, Array, Array], Array]
    propose: Callable[[Array, Array, Array], tuple[Array, Array]]


class Denoiser(nn.Module):
    """Transformer over `h_{l_k} + p_k + E_c[c_k] + s_t`; slot k gives a logit to every candidate.

    Attributes:
      layers, heads, feed_forward: see `Transformer`.
      total: T.
    """

    layers: int
    heads: int
    feed_forward: int
    total: int

    @nn.compact
    def __call__(
        self, items: Array, lists: Array, condition: Array, steps: Array, *, drop: Drop
    ) -> Array:
        """Return logits `float32 [B, W, K, N]`: `(W_q o_k) . (W_k h_i) / sqrt(D)`.

        Args:
          items: h, `float32 [B, N, D]`.
          lists: `int32 [B, W, K]`.
          condition: `int32 [B, K]`, 0, 1 or 2 = not known.
          steps: t, `int32 [B]`.
          drop: dropout.
        """
        width = items.shape[-1]
        initial = nn.initializers.normal(0.02)
        places = self.param("places", initial, (lists.shape[-1], width))
        feedback = self.param("feedback", initial, (3, width))
        step = StepEmbedding(width, self.total)(steps)
        known = places[None] + jnp.take(feedback, condition, axis=0) + step[:, None]
        tokens = (take_items(items, lists) + known[:, None]).reshape(-1, *places.shape)
        encoder = Transformer(self.layers, self.heads, self.feed_forward, causal=False)
        encoded = encoder(tokens, lists.reshape(len(tokens), -1) >= 0, drop=drop)
        queries = nn.Dense(width, name="slot")(encoded).reshape(*lists.shape, width)
        keys = nn.Dense(width, use_bias=False, name="item")(items)
        return jnp.einsum("bwkd,bnd->bwkn", queries, keys) / jnp.sqrt(width)


def possible_swaps(lists: Array, where: Array) -> Array:
    """Tell which candidates slot k may be swapped with, each swap once: `bool [..., K, N]`.

    Those outside the list, and those in a later slot.

    Args:
      lists: `int32 [..., K]`.
      where: `bool [..., N]`.
    """
    standing = lists[..., None] == jnp.arange(where.shape[-1])
    passed = jnp.cumsum(standing.astype(jnp.int32), axis=-2) > 0
    return (lists >= 0)[..., None] & where[..., None, :] & ~passed


def swap(lists: Array, moves: Array, candidates: int) -> Array:
    """Put candidate `move % N` into slot `move // N`, its occupant where that one was.

    Args:
      lists: `int32 [..., K]`.
      moves: `int32 [...]`; K N = no move.
      candidates: N.
    """
    size = lists.shape[-1]
    slot, item = (moves // candidates)[..., None], (moves % candidates)[..., None]
    occupant = jnp.take_along_axis(lists, jnp.minimum(slot, size - 1), axis=-1)
    moved = jnp.where(lists == item, occupant, lists)
    moved = jnp.where(jnp.arange(size) == slot, item, moved)
    return jnp.where(slot < size, moved, lists)


def draw_swap(key: Array, lists: Array, where: Array, beta: Array) -> tuple[Array, Array]:
    """Draw the next list of one request by the swap noise, and the move that undoes it.

    Returns:
      `(R_t [K], move)`; the move back of a swap that put candidate i into slot k is to put what
      stood there into slot k again.
    """
    whether, which = jax.random.split(key)
    possible = possible_swaps(lists, where).reshape(-1)
    drawn = jax.random.categorical(which, ops.mask_logits(jnp.zeros(possible.shape), possible))
    moves = jax.random.bernoulli(whether, beta) & possible.any()
    candidates = len(where)
    stay = possible.size
    slot = drawn // candidates
    undo = slot * candidates + lists[slot]
    after = swap(lists, jnp.where(moves, drawn, stay), candidates)
    return after, jnp.where(moves, undo, stay)


def noise_by_swaps(
    key: Array, start: Array, where: Array, step: Array, betas: Array
) -> tuple[Array, Array]:
    """Draw R_1..R_t; return R_t `[K]` and the last move back, one-hot `[K N + 1]`."""
    stay = len(start) * len(where)

    def advance(state: tuple[Array, Array], now: tuple) -> tuple[tuple[Array, Array], None]:
        number, one, beta = now
        drawn = draw_swap(one, state[0], where, beta)
        return jax.tree.map(
            lambda new, old: jnp.where(number <= step, new, old), drawn, state
        ), None

    total = len(betas)
    now = (jnp.arange(1, total + 1), jax.random.split(key, total), betas)
    (noisy, undo), _ = jax.lax.scan(advance, (start, jnp.asarray(stay, start.dtype)), now)
    return noisy, jax.nn.one_hot(undo, stay + 1)


def swap_log_probabilities(logits: Array, lists: Array, where: Array) -> Array:
    """Softmax over all swaps and, with logit 0, staying: `float32 [B, W, K N + 1]`."""
    possible = possible_swaps(lists, where[:, None])
    flat = (*lists.shape[:-1], -1)
    padding = [(0, 0), (0, 0), (0, 1)]
    every = jnp.pad(possible.reshape(flat), padding, constant_values=True)
    values = jnp.pad(logits.reshape(flat), padding)
    return ops.mask_logits(ops.masked_log_softmax(values, every), every)


def propose_swaps(log_probabilities: Array, lists: Array, totals: Array) -> tuple[Array, Array]:
    """Return the W best children of W lists, one swap (or none) away from their parents."""
    moves = log_probabilities.shape[-1]
    best, chosen = _best(totals[..., None] + log_probabilities)
    parents = jnp.take_along_axis(lists, (chosen // moves)[..., None], axis=1)
    return swap(parents, chosen % moves, (moves - 1) // lists.shape[-1]), best


def noise_by_tokens(
    key: Array, start: Array, where: Array, step: Array, betas: Array
) -> tuple[Array, Array]:
    """Draw a_t given a_0 in every slot; return R_t `[K]` and the posterior of a_{t-1} `[K, N]`."""
    whether, which = jax.random.split(key)
    kept = jnp.cumprod(1.0 - betas)
    here, before = kept[step - 1], jnp.where(step > 1, kept[jnp.maximum(step - 2, 0)], 1.0)
    drawn = jax.random.categorical(
        which, ops.mask_logits(jnp.zeros(where.shape), where), shape=start.shape
    )
    keep = jax.random.bernoulli(whether, here, start.shape) | (start < 0)
    noisy = jnp.where(keep, start, drawn.astype(start.dtype))
    return noisy, token_posterior(noisy, start, where, betas[step - 1], before)


def token_posterior(noisy: Array, start: Array, where: Array, beta: Array, before: Array) -> Array:
    """Compute q(a_{t-1} | a_t, a_0) ~ Q_t[a_{t-1}, a_t] Qbar_{t-1}[a_0, a_{t-1}]: `[K, N]`.

    With Q_t = (1 - beta_t) I + beta_t / n for n real candidates. A row of an empty slot is 0.

    Args:
      noisy: a_t, `int32 [K]`.
      start: a_0, `int32 [K]`.
      where: `bool [N]`.
      beta: beta_t.
      before: abar_{t-1}, the product of 1 - beta up to step t - 1.
    """
    real = where.astype(jnp.float32)[None]
    share = real / jnp.maximum(real.sum(), 1.0)
    now, first = (jax.nn.one_hot(a, len(where)) for a in (noisy, start))
    joint = ((1.0 - beta) * now + beta * share) * (before * first + (1.0 - before) * share)
    total = joint.sum(axis=-1, keepdims=True)
    posterior = joint / jnp.where(total > 0, total, 1.0)
    return jnp.where((start >= 0)[:, None], posterior, 0.0)


def token_log_probabilities(logits: Array, lists: Array, where: Array) -> Array:
    """Softmax over the real candidates in every slot: `float32 [B, W, K, N]`."""
    real = jnp.broadcast_to(where[:, None, None], logits.shape)
    return ops.mask_logits(ops.masked_log_softmax(logits, real), real)


def propose_tokens(log_probabilities: Array, lists: Array, totals: Array) -> tuple[Array, Array]:
    """Fill slot after slot with candidates not yet in the new list, keeping the W best of all."""
    candidates = log_probabilities.shape[-1]
    table, built = log_probabilities, jnp.full_like(lists, -1)
    for slot in range(lists.shape[-1]):
        filled = lists[:, :, slot, None] >= 0
        used = (built[..., None] == jnp.arange(candidates)).any(axis=-2)
        options = jnp.where(used, ops.MASKED_LOGIT, table[:, :, slot])
        # An empty slot has one option, which stands in column 0.
        empty = jnp.where(jnp.arange(candidates) == 0, 0.0, ops.MASKED_LOGIT)[None, None]
        totals, chosen = _best(totals[..., None] + jnp.where(filled, options, empty))
        parent = (chosen // candidates)[..., None]
        built, lists = (jnp.take_along_axis(a, parent, axis=1) for a in (built, lists))
        table = jnp.take_along_axis(table, parent[..., None], axis=1)
        item = jnp.where(lists[:, :, slot] >= 0, chosen % candidates, -1)
        built = built.at[:, :, slot].set(item.astype(built.dtype))
    return built, totals


def step_back(
    process: Process,
    denoise: Callable[[Array, int], Array],
    start: Array,
    where: Array,
    *,
    total: int,
    beam: int,
) -> tuple[Array, Array]:
    """Run the reverse process by beam search over the log-probability of its steps.

    Args:
      process: which one.
      denoise: `(lists [B, W, K], step)` to logits `[B, W, K, N]`.
      start: R_T, `int32 [B, K]`.
      where: `bool [B, N]`.
      total: T.
      beam: W.

    Returns:
      All lists seen, the start first, `int32 [B, 1 + T W, K]`, and `bool [B, 1 + T W]`, False
      where the beam was not full.
    """
    lists = jnp.broadcast_to(start[:, None], (len(start), beam, start.shape[1]))
    totals = drop_repeats(lists, jnp.zeros(lists.shape[:2]))
    seen, alive = [start[:, None]], [jnp.ones((len(start), 1), bool)]
    for step in range(total, 0, -1):
        found = process.log_probabilities(denoise(lists, step), lists, where)
        lists, totals = process.propose(found, lists, totals)
        totals = drop_repeats(lists, totals)
        seen.append(lists)
        alive.append(totals > ops.MASKED_LOGIT / 2)
    return jnp.concatenate(seen, axis=1), jnp.concatenate(alive, axis=1)


def drop_repeats(lists: Array, totals: Array) -> Array:
    """Set the totals of lists `[B, W, K]` that stand earlier in the beam to `MASKED_LOGIT`."""
    same = (lists[:, :, None] == lists[:, None]).all(axis=-1)
    repeated = jnp.tril(same, k=-1).any(axis=-1)
    return jnp.where(repeated, ops.MASKED_LOGIT, totals)


def _best(totals: Array) -> tuple[Array, Array]:
    """Return the W highest of `[B, W, M]`, and their places among W M."""
    return jax.lax.top_k(totals.reshape(len(totals), -1), totals.shape[1])


PERMUTATION = Process(noise_by_swaps, swap_log_probabilities, propose_swaps)
TOKEN = Process(noise_by_tokens, token_log_probabilities, propose_tokens)
