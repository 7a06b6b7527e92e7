"""The two sums over all pairs as portable Pallas kernels: for TPU, and interpreted elsewhere.

Each cell of the grid owns a tile of rows and loops over all columns, so no cell waits for another
and nothing has size n x m. Rows lie along sublanes (`[ROWS, 1]`), columns along lanes; all columns
stay in the fast memory of the chip, 8 to 12 bytes each. Row counts must be multiples of `ROWS`,
column counts multiples of `COLUMNS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from dnr_jax.types import Array

ROWS, COLUMNS = 256, 512
LOWEST = -2e30  # below every exponent, and finite: -inf - -inf is NaN


def log_sums(x: Array, y: Array, v: Array, *, interpret: bool) -> Array:
    """Return log sum_j exp(v_j - (x_i - y_j)^2), `[n]`, in one pass with a running maximum."""
    (sums,) = _over_rows(_log_sum_tile, (x,), (y, v), outputs=1, interpret=interpret)
    return sums


def pulls(
    x: Array, u: Array, y: Array, v: Array, w: Array, *, interpret: bool
) -> tuple[Array, Array]:
    """Return sum_j e_ij and sum_j e_ij (x_i - y_j), e_ij = w_j exp(u_i + v_j - (x_i - y_j)^2)."""
    mass, pull = _over_rows(_pull_tile, (x, u), (y, v, w), outputs=2, interpret=interpret)
    return mass, pull


def _over_rows(
    kernel: Callable[..., None],
    rows: tuple[Array, ...],
    columns: tuple[Array, ...],
    *,
    outputs: int,
    interpret: bool,
) -> list[Array]:
    n, steps = rows[0].shape[0], columns[0].shape[0] // COLUMNS
    tile = pl.BlockSpec((ROWS, 1), lambda i: (i, 0))
    whole = pl.BlockSpec((steps, COLUMNS), lambda i: (0, 0))
    call = pl.pallas_call(
        kernel,
        grid=(n // ROWS,),
        in_specs=[tile] * len(rows) + [whole] * len(columns),
        out_specs=[tile] * outputs,
        out_shape=[jax.ShapeDtypeStruct((n, 1), jnp.float32)] * outputs,
        interpret=interpret,
    )
    results = call(*(r[:, None] for r in rows), *(c.reshape(steps, COLUMNS) for c in columns))
    return [result[:, 0] for result in results]


def _log_sum_tile(x_ref: Any, y_ref: Any, v_ref: Any, out_ref: Any) -> None:
    x = x_ref[...]

    def step(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        top, total = carry
        exponents = v_ref[pl.ds(j, 1), :] - (x - y_ref[pl.ds(j, 1), :]) ** 2
        higher = jnp.maximum(top, exponents.max(1, keepdims=True))
        new = jnp.exp(exponents - higher).sum(1, keepdims=True)
        return higher, total * jnp.exp(top - higher) + new

    start = (jnp.full_like(x, LOWEST), jnp.zeros_like(x))
    top, total = jax.lax.fori_loop(0, y_ref.shape[0], step, start)
    out_ref[...] = top + jnp.log(total)


def _pull_tile(
    x_ref: Any, u_ref: Any, y_ref: Any, v_ref: Any, w_ref: Any, mass_ref: Any, pull_ref: Any
) -> None:
    x, u = x_ref[...], u_ref[...]

    def step(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        mass, pull = carry
        gap = x - y_ref[pl.ds(j, 1), :]
        e = w_ref[pl.ds(j, 1), :] * jnp.exp(u + v_ref[pl.ds(j, 1), :] - gap**2)
        return mass + e.sum(1, keepdims=True), pull + (e * gap).sum(1, keepdims=True)

    start = (jnp.zeros_like(x), jnp.zeros_like(x))
    mass_ref[...], pull_ref[...] = jax.lax.fori_loop(0, y_ref.shape[0], step, start)
