"""One update of a retriever's parameters: all of them, or only the table rows of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import optax

from dnr_jax.io.memory import GIB, of_device
from dnr_jax.nn import tables
from dnr_jax.nn.rowwise_adagrad import scale_by_rowwise_adagrad
from dnr_jax.nn.tables import UPDATES, RowsOf
from dnr_jax.retrievers.retriever import RetrieverSettings
from dnr_jax.settings import knob
from dnr_jax.types import Array, Params

# Floor of row-wise Adagrad's denominator: optax's default for Adam.
EPS = 1e-8
# Parameters that are not tables; with row-wise Adagrad they are still trained by Adam.
NETWORKS = ("tower",)


@dataclass(frozen=True, kw_only=True)
class LearnerSettings(RetrieverSettings):
    """Settings that the retrievers trained by `fit_batches` have in common."""

    width: int = knob(64, "of the vectors whose inner product is the score", at_least=1)
    epochs: int = knob(60, "the most epochs", at_least=1)
    batch_size: int = knob(512, "examples per step", at_least=1)
    learning_rate: float = knob(1e-3, "Adam's step size", above=0, at_most=10)
    patience: int = knob(
        4, "epochs without a better validation AUC before it stops; 0 = never", at_least=0
    )


@dataclass(frozen=True, kw_only=True)
class TableSettings(LearnerSettings):
    """Settings of the retrievers that can train only the rows of a batch."""

    tables: str = knob(
        "dense",
        "embedding tables: dense = Adam on every row; lazy_adam or rowwise_adagrad = on the "
        "batch's rows alone, for more than about 100,000 users or items",
        one_of=UPDATES,
    )
    table_learning_rate: float = knob(0.01, "step size of row-wise Adagrad", above=0, at_most=10)


def check_memory(name: str, settings: TableSettings, params: Params) -> None:
    """Refuse tables that cannot be trained on the device, before any of them is allocated.

    Args:
      name: name of the retriever.
      settings: its settings.
      params: the shapes of its parameters.

    Raises:
      ValueError: the values, their moments, the best so far and one more copy (the next best, or
        the dense gradient) do not fit in memory; it names the estimate and two knobs that help.
    """
    memory, sparse = of_device(), settings.tables == "rowwise_adagrad"
    copies = 2 + (1 + 1 / settings.width if sparse else 3)
    needed = copies * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    if memory is None or needed <= memory:
        return
    place = f"config.retrievers.{name}"
    other = "a larger config.data.core" if sparse else f"{place}.tables=rowwise_adagrad"
    raise ValueError(
        f"retriever {name!r} does not fit a device of {memory / GIB:.2f} GiB: training its tables "
        f"takes at least {needed / GIB:.2f} GiB; set {other}, or a smaller {place}.width"
    )


def make_optimizer(settings: LearnerSettings) -> optax.GradientTransformation:
    """Make Adam; if the settings ask for it, all but the networks use row-wise Adagrad."""
    adam = optax.adam(settings.learning_rate)
    if not isinstance(settings, TableSettings) or settings.tables != "rowwise_adagrad":
        return adam
    rate = optax.scale_by_learning_rate(settings.table_learning_rate)
    adagrad = optax.chain(scale_by_rowwise_adagrad(EPS), rate)
    return optax.multi_transform({"tables": adagrad, "networks": adam}, _kinds)


def _kinds(params: Params) -> dict[str, str]:
    return {name: "networks" if name in NETWORKS else "tables" for name in params}


def descend(
    optimizer: optax.GradientTransformation,
    loss: Callable[[Params], Array],
    state: tuple[Params, Any],
    rows: RowsOf,
) -> tuple[tuple[Params, Any], Array]:
    """Update parameters and optimiser state once; of tables, only the `rows`.

    Args:
      optimizer: one whose update of a row depends only on that row.
      loss: a function of the parameters that reads no other rows of the tables.
      state: parameters and optimiser state.
      rows: from `tables.distinct`, by the tables' names; empty = all rows of all tables.

    Returns:
      The new state, in place if `state` is donated, and the loss before the update.
    """
    params, memory = tables.gather(state, rows)
    value, gradient = jax.value_and_grad(lambda params: loss(tables.join(params, rows)))(params)
    updates, memory = optimizer.update(gradient, memory, params)
    small = optax.apply_updates(params, updates), memory
    return tables.scatter(state, small, rows), value
