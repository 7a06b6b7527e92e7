"""The role of each column of a user's table: from customary names, a schema file, or flags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import NamedTuple

import polars as pl

from dnr_jax.data.encoders import Encoders
from dnr_jax.data.table.naming import KINDS, LOG, SIDES, Naming, as_in
from dnr_jax.settings import unknown

# The columns with a role of their own, and other customary names for them.
# Case, blanks, hyphens and underscores do not count: `itemID` is `item_id`.
ROLES: Mapping[str, tuple[str, ...]] = {
    "request_id": ("qid", "query_id", "impression_id", "list_id"),
    "item_id": (
        *("docno", "doc_id", "movie_id", "asin", "video_id", "article_id", "news_id"),
        "product_id",
    ),
    "label": ("target", "rating", "relevance", "rel", "click", "clicked"),
    "score": ("prediction", "retriever_score"),
    "rank": (),
    "user_id": ("uid", "reviewer_id"),
    "timestamp": ("time", "impression_time", "request_timestamp", "unix_time"),
    "position": ("shown_position",),
    "exposed": ("shown",),
    "weight": ("sample_weight",),
    "propensity": (),
    "split": (),
    "history": ("user_history",),
    "history_time": (),
}
REQUIRED = ("request_id", "item_id")
REQUEST = ("request_id", "user_id", "history")
INTERACTIONS = (
    ". Ratings, purchases or clicks without candidates: dnr-jax train LOGS --data interactions"
)
TASK = "label_"  # label_click, label_buy, ...: one column per task
PREFIXES = {"u_": "user", "c_": "context", "i_": "item"}


class Feature(NamedTuple):
    """A feature column.

    Attributes:
      name: name of the column.
      side: what it describes: "user", "context" (the request) or "item" (the candidate).
      kind: "id" (categorical), "bag" (a list of ids), "numeric" or "vector" (a list of numbers).
      log: whether a number is scaled by its logarithm instead of by quantiles.
      buckets: > 0 = ids are hashed to two of this many rows; 0 = each known value has its own.
    """

    name: str
    side: str
    kind: str
    log: bool = False
    buckets: int = 0


class Schema(NamedTuple):
    """The role of each column of a table.

    Attributes:
      columns: column by role, for the roles that the table has.
      labels: label columns and the weight of each, summing to 1; empty = there is none.
      features: feature columns, in the order of the table.
      ignored: all other columns.
    """

    columns: Mapping[str, str]
    labels: Mapping[str, float]
    features: tuple[Feature, ...]
    ignored: tuple[str, ...]

    @property
    def used(self) -> tuple[str, ...]:
        """Names of all columns that are read."""
        own = (*self.columns.values(), *self.labels, *(feature.name for feature in self.features))
        return tuple(dict.fromkeys(own))

    def of(self, side: str, *kinds: str) -> tuple[Feature, ...]:
        """List the features of one side, of the given kinds."""
        return tuple(f for f in self.features if f.side == side and f.kind in kinds)


def understand(types: Mapping[str, pl.DataType], naming: Naming, place: str) -> Schema:
    """Find the role of each column.

    Args:
      types: type of each column.
      naming: what the user says about them; it wins over customary names.
      place: name of the table, for messages.

    Raises:
      ValueError: a required column is absent, two columns could have the same role, a name is not
        a column's, or no kind of feature fits a column's type.
    """
    _check_named(types, naming, place)
    columns = {role: name for role, name in naming.columns.items() if role != "label"}
    taken = {*naming.columns.values(), *naming.labels, *naming.features, *naming.ignored}
    free = [name for name in types if name not in taken]
    for role in ROLES:
        found = _customary(role, free, place) if role not in naming.columns else None
        if found and not (role == "label" and naming.labels):
            columns[role] = found
    labels = _labels(columns.pop("label", None), free, naming)
    _check_required(columns, types, place)
    known = {*columns.values(), *labels}
    features = tuple(
        _feature(name, types[name], naming, place)
        for name in types
        if name not in known and (name in naming.features or (name in free and _side(name)))
    )
    known |= {feature.name for feature in features}
    _check_hashed(features, naming)
    return Schema(columns, labels, features, tuple(name for name in types if name not in known))


def understand_requests(types: Mapping[str, pl.DataType], naming: Naming, place: str) -> Schema:
    """Find the columns `REQUEST` of a table with one row per request; the first is required.

    Raises:
      ValueError: it is absent, two columns could have the same role, or a name is not a column's.
    """
    _check_named(types, naming, place)
    found = {r: naming.columns.get(r) or _customary(r, list(types), place) for r in REQUEST}
    columns = {role: name for role, name in found.items() if name is not None}
    if REQUEST[0] not in columns:
        raise ValueError(
            f"{place} has no column {REQUEST[0]}; its columns are {', '.join(types)}. Name yours, "
            f"as in {as_in(REQUEST[0])}"
        )
    known = columns.values()
    return Schema(columns, {}, (), tuple(name for name in types if name not in known))


def features_of(encoders: Encoders) -> tuple[Feature, ...]:
    """List the features that a model was trained with."""
    transforms = encoders.transforms
    sides = {name: side for side, widths in transforms["widths"].items() for name in widths}
    sides |= dict.fromkeys(transforms["numbers"], "context")  # or of the user: both are a request's
    sides |= dict.fromkeys(transforms["item_numbers"], "item")
    words = encoders.vocabularies
    buckets = {name: words[name].buckets for name in transforms["kinds"] if name in words}
    return tuple(
        Feature(name, sides[name], kind, buckets=buckets.get(name, 0))
        for name, kind in transforms["kinds"].items()
    )


def plain(name: str) -> str:
    """Reduce a name for comparison: lower case, without blanks, hyphens and underscores."""
    return name.strip().lower().translate({ord(c): None for c in "_- "})


def customary(*roles: str) -> set[str]:
    """Return the customary names of columns of some roles, each reduced by `plain`."""
    return {plain(alias) for role in roles for alias in (role, *ROLES[role])}


def find_role(role: str, names: Iterable[str], place: str) -> str:
    """Return the column whose name fits `role`; raise `ValueError` for none or several."""
    names = list(names)
    found = _customary(role, names, place)
    if found is None:
        raise ValueError(
            f"{place} has no column {role}; its columns are {', '.join(names)}. Rename yours"
        )
    return found


def _check_named(types: Mapping[str, pl.DataType], naming: Naming, place: str) -> None:
    for role in naming.columns:
        if role not in ROLES:
            raise ValueError(f"columns: {unknown('column', role, ROLES)}")
    given = (naming.columns.values(), naming.labels, naming.features, naming.ignored, naming.hashed)
    for name in chain(*given):
        if name not in types:
            raise ValueError(f"{place}: {unknown('column', name, types)}")


def _check_hashed(features: Iterable[Feature], naming: Naming) -> None:
    ids = [feature.name for feature in features if feature.kind in ("id", "bag")]
    for name in naming.hashed:
        if name not in ids:
            raise ValueError(
                f"hashed: {name} is not an id feature; those of this table are "
                f"{', '.join(ids) or 'none'}"
            )


def _customary(role: str, names: list[str], place: str) -> str | None:
    if role in names:
        return role
    wanted = customary(role)
    found = [name for name in names if plain(name) in wanted]
    if len(found) > 1:
        raise ValueError(
            f"{place}: the columns {', '.join(found)} could each be {role}: say which it is, as in "
            f"{as_in(role, found[0])}"
        )
    return found[0] if found else None


def _labels(single: str | None, free: list[str], naming: Naming) -> dict[str, float]:
    """Weigh the label columns: those the user named, else `label`, else all `label_*`."""
    given = dict(naming.labels)
    if not given and "label" in naming.columns:
        given = {naming.columns["label"]: 1.0}
    if not given and single is not None:
        given = {single: 1.0}
    if not given:
        given = {name: 1.0 for name in free if name.startswith(TASK)}
    total = sum(given.values())
    return {name: weight / total for name, weight in given.items()}


def _check_required(
    columns: Mapping[str, str], types: Mapping[str, pl.DataType], place: str
) -> None:
    missing = [role for role in REQUIRED if role not in columns]
    if missing:
        hint = INTERACTIONS if missing == ["request_id"] and "user_id" in columns else ""
        also = "; ".join(f"{role} may also be {', '.join(ROLES[role])}" for role in missing)
        raise ValueError(
            f"{place} has no column {' and no column '.join(missing)}; its columns are "
            f"{', '.join(types)}. Name yours, as in {as_in(missing[0])}; {also}{hint}"
        )


def _side(name: str) -> str:
    return PREFIXES.get(name[:2], "")


def _feature(name: str, kind: pl.DataType, naming: Naming, place: str) -> Feature:
    if name in ROLES:
        raise ValueError(f"{place}: {name} names a role and cannot be a feature: rename the column")
    words = naming.features.get(name, ())
    side = next((word for word in words if word in SIDES), _side(name))
    if not side:
        raise ValueError(
            f"features: say what {name} describes, as in {name} = 'item' ({', '.join(SIDES)})"
        )
    log = LOG in words
    chosen = next((word for word in words if word in KINDS), "numeric" if log else _kind(kind))
    if log and chosen != "numeric":
        raise ValueError(f"features: {name} is {chosen}, but only a number has a log: leave it out")
    if chosen not in _possible(kind):
        possible = ", ".join(_possible(kind)) or "none"
        raise ValueError(
            f"{place}: column {name} is {kind}, which cannot be read as "
            f"{chosen or 'a feature'} (possible: {possible}); convert it, or ignore it"
        )
    return Feature(name, side, chosen, log, naming.hashed.get(name, 0))


def _possible(kind: pl.DataType) -> tuple[str, ...]:
    inner = _inner(kind)
    if inner is not None:
        return {"id": ("bag",), "numeric": ("vector",), "both": ("bag", "vector")}.get(
            _plain_kind(inner), ()
        )
    return {"id": ("id",), "numeric": ("numeric",), "both": ("id", "numeric")}.get(
        _plain_kind(kind), ()
    )


def _kind(kind: pl.DataType) -> str:
    return (*_possible(kind), "")[0]


def _plain_kind(kind: pl.DataType) -> str:
    """Choose the kind of a plain type; an int is an id unless the user says it is a number."""
    if kind.is_integer():
        return "both"
    if kind.is_float() or kind.is_decimal():
        return "numeric"
    if kind in (pl.String, pl.Boolean, pl.Categorical, pl.Enum):
        return "id"
    return ""


def _inner(kind: pl.DataType) -> pl.DataType | None:
    if isinstance(kind, pl.List | pl.Array):
        return kind.inner  # type: ignore[return-value]
    return None
