"""A model as one program: arrays of requests and raw first-stage scores in, its scores out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import export
from jax import numpy as jnp

from dnr_jax.data.protocols import SCORES
from dnr_jax.io import model_files
from dnr_jax.named_arrays import flatten, unflatten
from dnr_jax.serving.model import Model
from dnr_jax.types import Array, Request

# (parameters by name, fields of a Request by name, raw scores [B, N]) -> float32 [B, N]
Program = Callable[[Mapping[str, Any], Mapping[str, Any], Array], Array]
PLATFORMS = ("cpu", "cuda", "tpu")


def of(model: Model) -> Program:
    """Make the program of a model, including the transform of first-stage scores.

    Its arguments are the arrays of `data.direct.Encoder`, and the parameters by their names in the
    archive.
    """
    transform = SCORES.get(model.card["score"] or "", _as_it_is)

    def score(parameters: Mapping[str, Any], arrays: Mapping[str, Any], raw: Array) -> Array:
        request = Request(**arrays)
        params = unflatten(parameters, model_files.SEPARATOR)
        return model.order(params, request, transform(raw, request.where))

    return score


def parameters_of(model: Model) -> dict[str, np.ndarray]:
    """Name the parameters as their archive does."""
    return flatten(model.params, model_files.SEPARATOR)


def lower(model: Model) -> export.Exported:
    """Lower a model to StableHLO for all `PLATFORMS`; batch B and list N are left open, N >= K.

    Raises:
      ValueError: the model uses B or N in a way that needs their values.
    """
    least = model.card["task"]["slate_size"]
    batch, size = export.symbolic_shape("b, n", constraints=["b >= 1", f"n >= {least}"])
    parameters = {n: _like(a.shape, a.dtype) for n, a in parameters_of(model).items()}
    given = arrays_like(model, batch, size)
    try:
        lowered = export.export(jax.jit(of(model)), platforms=PLATFORMS)
        return lowered(parameters, given, _like((batch, size), np.float32))
    except (TypeError, ValueError) as error:
        name, reason = model.card["reranker"]["name"], str(error).splitlines()[0]
        raise ValueError(f"{name} cannot be exported with these knobs: {reason}") from error


def arrays_like(model: Model, batch: Any, size: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Give shapes and dtypes of a model's requests; `batch` and `size` may be symbols."""
    spec, events = model.encoders.spec, model.encoders.history
    shapes = {
        "index": ((batch,), np.uint32),
        "user": ((batch, len(spec.user)), np.int32),
        "context": ((batch, len(spec.context)), np.int32),
        "history": ((batch, events, len(spec.history)), np.int32),
        "history_where": ((batch, events), np.bool_),
        "candidates": ((batch, size, len(spec.item)), np.int32),
        "where": ((batch, size), np.bool_),
        "numbers": ((batch, len(spec.numbers)), np.float32),
        "item_numbers": ((batch, size, len(spec.item_numbers)), np.float32),
    }
    absent = [name for name in ("numbers", "item_numbers") if not getattr(spec, name)]
    return {name: _like(*one) for name, one in shapes.items() if name not in absent}


def difference(model: Model, exported: export.Exported) -> float:
    """Return the largest difference of scores between a model and its exported program.

    They score a small batch of unknown ids, which runs all parts of any model.
    """
    size = model.encoders.size
    arrays = {n: jnp.ones(a.shape, a.dtype) for n, a in arrays_like(model, 2, size).items()}
    raw = jnp.linspace(0, 1, 2 * size, dtype=jnp.float32).reshape(2, size)
    given = parameters_of(model), arrays, raw
    mine, other = jax.jit(of(model))(*given), jax.jit(exported.call)(*given)
    return float(np.abs(np.asarray(mine) - np.asarray(other)).max())


def _as_it_is(raw: Array, where: Array) -> Array:
    return raw


def _like(shape: tuple[Any, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)
