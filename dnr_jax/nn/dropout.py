"""Dropout from a counter-based integer hash, handed down the modules as a function.

`flax.linen.Dropout` runs a cipher (threefry) twice per call, once to derive the call's key and once
to draw. In a small transformer that was half of the run time of an epoch on a CPU and two fifths
of its compile time. Here a call costs a few integer operations that fuse with those around it.

A mask is a pure function of the key, the number of the call, the request's own number and the
element's place within the request. So it does not depend on batch, part, order or shard.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import count

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import get_opaque_trace_state

from dnr_jax.types import Array

Drop = Callable[[Array], Array]

# Rounded 2^32 / golden ratio: its multiples, modulo 2^32, are far apart.
_STRIDE = 0x9E3779B9


def identity(x: Array) -> Array:
    """Return `x`: the `Drop` of a model that is not training."""
    return x


def make_dropout(rate: float, key: Array, index: Array) -> Drop:
    """Make `drop(x)`: each element is 0 with probability `rate`, else divided by `1 - rate`.

    `x` is `[B, ...]`, with the requests' axis first; use `grouped` if each has several rows. Every
    call of one `drop` has its own mask (calls are numbered while tracing), so make one `drop` per
    forward pass, inside the function that is transformed. A `drop` made outside of a `vmap` or a
    scan would give all samples or steps the same mask, so it raises `ValueError`, as it does for a
    leading axis other than B.

    Args:
      rate: in [0, 1).
      key: one typed key, of any implementation.
      index: `uint32 [B]`, the requests' own numbers.
    """
    if rate == 0:
        return identity
    threshold = np.uint32(round((1 - rate) * (2**32 - 1)))
    words = _request_words(key, index)
    calls, made_in = count(), get_opaque_trace_state()

    def drop(x: Array) -> Array:
        _check_rows(x.shape, len(index))
        if get_opaque_trace_state() != made_in:
            raise ValueError("drop was made outside of this vmap, scan or grad: make it inside")
        kept = _hash(words, next(calls), x.shape) < threshold
        return jnp.where(kept, x / (1 - rate), 0.0)

    return drop


def grouped(drop: Drop, size: int) -> Drop:
    """Make a `Drop` for arrays `[B * size, ...]`: `size` consecutive rows (lists, samples) each.

    Each row has its own mask. Like `drop` it raises `ValueError` for other leading axes.
    """

    if drop is identity:
        return identity

    def drop_rows(x: Array) -> Array:
        if len(x) % size:
            raise ValueError(f"drop takes {size} rows per request, but x is {x.shape}")
        return drop(x.reshape(-1, size, *x.shape[1:])).reshape(x.shape)

    return drop_rows


def _check_rows(shape: tuple[int, ...], requests: int) -> None:
    if shape[:1] != (requests,):
        raise ValueError(
            f"drop takes arrays [B, ...] of B = {requests} requests, but x is {shape}: move their "
            "axis to the front, or use `grouped` for several rows per request"
        )


def _request_words(key: Array, index: Array) -> Array:
    """Hash the key and each request's number into two words: `uint32 [2, B]`."""
    words = _two_words(key)[:, None]
    return _lowbias32(words + index.astype(jnp.uint32)[None], words[::-1])


def _two_words(key: Array) -> Array:
    """Hash the words of a key (2 of threefry, 4 of rbg) into `uint32 [2]`.

    Keys that were never split differ only in a few low bits; after hashing they differ in all.
    """
    words = jnp.zeros(2, jnp.uint32)
    for pair in jax.random.key_data(key).reshape(-1, 2):
        words = _lowbias32(words + pair + np.uint32(_STRIDE), np.uint32(0))
    return words


def _hash(words: Array, call: int, shape: tuple[int, ...]) -> Array:
    """Return uniform `uint32 [*shape]`: a hash of one counter per request, shared by all calls.

    The request's counter starts at one of its words; the other enters between the hash's rounds, so
    that the masks of two requests, or of two keys, are not permutations of one another.
    """
    start, word = words.reshape(2, -1, *[1] * (len(shape) - 1))
    place = jax.lax.iota(jnp.uint32, math.prod(shape[1:])).reshape(1, *shape[1:])
    return _lowbias32(place + (start + np.uint32(call * _STRIDE % 2**32)), word)


def _lowbias32(x: Array, word: Array | np.uint32) -> Array:
    """Scramble `x` with the constants of lowbias32 (C. Wellons, hash-prospector)."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15) ^ word) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)
