"""The two sums over all pairs as Mosaic GPU kernels (`plgpu.kernel`): NVIDIA, Hopper and later.

Each thread owns one row and loops over all columns, whose values all threads of a block read at the
same time. So there is no shared memory, no barrier and no reduction across threads. Row counts must
be multiples of `ROWS`, column counts multiples of `UNROLL`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from dnr_jax.types import Array

ROWS = 128  # the threads of one warpgroup
UNROLL = 8  # columns per update of the running maximum: independent exponentials hide latency
LOWEST = -2e30  # below every exponent, and finite: -inf - -inf is NaN


def log_sums(x: Array, y: Array, v: Array) -> Array:
    """Return log sum_j exp(v_j - (x_i - y_j)^2), `[n]`, in one pass with a running maximum."""
    (sums,) = _over_rows(_log_sum_rows, (x, y, v), outputs=1)
    return sums


def pulls(x: Array, u: Array, y: Array, v: Array, w: Array) -> tuple[Array, Array]:
    """Return sum_j e_ij and sum_j e_ij (x_i - y_j), e_ij = w_j exp(u_i + v_j - (x_i - y_j)^2)."""
    mass, pull = _over_rows(_pull_rows, (x, u, y, v, w), outputs=2)
    return mass, pull


def _over_rows(body: Callable[..., None], inputs: Sequence[Array], *, outputs: int) -> list[Array]:
    n = inputs[0].shape[0]
    call = plgpu.kernel(
        body,
        out_type=[jax.ShapeDtypeStruct((n,), jnp.float32)] * outputs,
        grid=(n // ROWS,),
        grid_names=("tile",),
        compiler_params=plgpu.CompilerParams(
            lowering_semantics=plgpu.LoweringSemantics.Warpgroup,
            approx_math=True,  # the hardware's own exp2 and log2, 2 ulp
        ),
    )
    return call(*inputs)


def _own_rows() -> slice | pl.Slice:
    return pl.ds(jax.lax.axis_index("tile") * ROWS, ROWS)


def _log_sum_rows(x_ref: Any, y_ref: Any, v_ref: Any, out_ref: Any) -> None:
    x = x_ref[_own_rows()]

    def step(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        top, total = carry
        columns = [j * UNROLL + k for k in range(UNROLL)]
        exponents = [v_ref[k] - (x - y_ref[k]) ** 2 for k in columns]
        higher = top
        for exponent in exponents:
            higher = jnp.maximum(higher, exponent)
        total = total * jnp.exp(top - higher)
        for exponent in exponents:
            total = total + jnp.exp(exponent - higher)
        return higher, total

    start = (jnp.full_like(x, LOWEST), jnp.zeros_like(x))
    top, total = jax.lax.fori_loop(0, y_ref.shape[0] // UNROLL, step, start)
    out_ref[_own_rows()] = top + jnp.log(total)


def _pull_rows(
    x_ref: Any, u_ref: Any, y_ref: Any, v_ref: Any, w_ref: Any, mass_ref: Any, pull_ref: Any
) -> None:
    x, u = x_ref[_own_rows()], u_ref[_own_rows()]

    def step(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        mass, pull = carry
        for k in range(UNROLL):
            column = j * UNROLL + k
            gap = x - y_ref[column]
            e = w_ref[column] * jnp.exp(u + v_ref[column] - gap**2)
            mass, pull = mass + e, pull + e * gap
        return mass, pull

    start = (jnp.zeros_like(x), jnp.zeros_like(x))
    mass, pull = jax.lax.fori_loop(0, y_ref.shape[0] // UNROLL, step, start)
    mass_ref[_own_rows()] = mass
    pull_ref[_own_rows()] = pull
