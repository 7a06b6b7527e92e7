"""Embedding tables of the catalogue's columns, and the mean embedding of a history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax.data.direct import POSITIVE
from dnr_jax.data.encoders import KNOWN
from dnr_jax.data.lists import Catalogue
from dnr_jax.nn import tables as rows_
from dnr_jax.nn.tables import Name, Rows
from dnr_jax.retrievers.retriever import Queries, State
from dnr_jax.types import Array, Params

INITIAL_SCALE = 0.05


class Features(NamedTuple):
    """The encoded features of all users and items.

    Attributes:
      users: `int32 [U, Fu]`, as `Catalogue.users`.
      items: `int32 [V, Fi]`, as `Catalogue.items`.
    """

    users: np.ndarray
    items: np.ndarray


def features(catalogue: Catalogue) -> Features:
    """Return the features of a catalogue."""
    return Features(catalogue.users, catalogue.items)


def init(key: Array, catalogue: Catalogue, width: int) -> Params:
    """Draw a table for each column, and one for the feedback of an event.

    Returns:
      `users` and `items`, each a list of tables in column order, and `feedback`, one table; all
      tables are `float32 [vocabulary, width]`.
    """
    user_key, item_key, event_key = jax.random.split(key, 3)

    def drawn(key: Array, names: tuple[str, ...]) -> list[Array]:
        sizes = [catalogue.vocabularies[name].size for name in names]
        return [
            INITIAL_SCALE * jax.random.normal(own, (size, width))
            for own, size in zip(jax.random.split(key, len(names)), sizes, strict=True)
        ]

    return {
        "users": drawn(user_key, catalogue.user_columns),
        "items": drawn(item_key, catalogue.item_columns),
        "feedback": INITIAL_SCALE * jax.random.normal(event_key, (POSITIVE + 1, width)),
    }


def factors(state: State) -> Params:
    """Put kept `users`, `items` and `bias` on the device; rows 0 and 1 of `users` become 0."""
    users = np.array(state["users"])
    users[:KNOWN] = 0
    return {name: jnp.asarray(array) for name, array in {**state, "users": users}.items()}


def at(table: Array | Rows, ids: Any) -> Array:
    """Return rows `ids` of a table, or of its gathered rows."""
    return rows_.read(table, ids, mode="clip") if isinstance(table, Rows) else table[ids]


def read(tables: Sequence[Array | Rows], ids: Any) -> Array:
    """Sum the rows of `ids` `int32 [..., columns]` over the columns; padding adds nothing."""
    columns = (
        at(table, ids[..., n]) * (ids[..., n] > 0)[..., None] for n, table in enumerate(tables)
    )
    return sum(columns, jnp.zeros((), jnp.float32))


def distinct(tables: Sequence[Array], ids: Any, place: Name) -> dict[Name, Array]:
    """Return the distinct rows that `read` reads of each table, including padding.

    Args:
      tables: one table per column.
      ids: `int32 [..., columns]`.
      place: the path of `tables` in the parameters.
    """
    own = [jnp.append(ids[..., n].reshape(-1), 0) for n in range(len(tables))]
    return {
        (*place, n): rows_.distinct(ids, rows=len(table))
        for n, (table, ids) in enumerate(zip(tables, own, strict=True))
    }


def history_mean(params: Params, known: Features, queries: Queries) -> Array:
    """Average the events of each history, item and feedback: `float32 [n, D]`; 0 where empty."""
    events = read(params["items"], known.items[queries.history])
    events = events + params["feedback"][queries.feedback]
    where = (queries.history > 0)[..., None]
    total = jnp.sum(jnp.where(where, events, 0.0), axis=1)
    return total / jnp.maximum(where.sum(axis=1), 1)
