"""The service's requests and answers: JSON in Metarank's format, with the model's own fields.

{"id": "r1", "user": 7, "timestamp": 1700000000, "history": [3, 5], "fields": {"c_weekday": 2},
 "items": [{"id": 10, "score": 0.3, "fields": {"i_price": 9.5}}, ...]}

{"took": 4.1, "items": [{"item": 10, "score": 1.25}, ...]}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, NotRequired

import numpy as np
from pydantic import BeforeValidator, Field, FiniteFloat, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, core_schema, to_json
from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

from dnr_jax.data.direct import LARGEST_SCORE
from dnr_jax.data.encoders import Encoders
from dnr_jax.data.table.schema import features_of


class _AnId:
    """Text, an integer, or a boolean, with one message for anything else."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        kinds: list[Any] = [  # the usual first; a whole float is an integer, text of digits is not
            core_schema.int_schema(strict=True),
            core_schema.str_schema(strict=True),
            core_schema.bool_schema(strict=True),
            core_schema.int_schema(),
        ]
        return core_schema.union_schema(
            kinds,
            mode="left_to_right",
            custom_error_type="id",
            custom_error_message="Input should be text or an integer",
        )


class _AnEvent:
    """An item or [item, liked], with one message for anything else."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        item = handler.generate_schema(Id)
        liked = core_schema.union_schema(
            [core_schema.bool_schema(strict=True), core_schema.literal_schema([0, 1])]
        )
        return core_schema.union_schema(
            [item, core_schema.tuple_schema([item, liked])],
            custom_error_type="event",
            custom_error_message="Input should be an item, or [item, true or false]",
        )


Id = Annotated[bool | int | str, _AnId()]
Event = Annotated[Any, _AnEvent()]
_record: Any = TypedDict  # whose fields only the model knows


class Asked(NamedTuple):
    """A request that was read.

    Attributes:
      ids: ids of its items, as they were given.
      raw: the request as `data.direct` takes it, items by column. Its `"scores"` are None unless
        every item has a score.
    """

    ids: list[Any]
    raw: dict[str, Any]


class Reader:
    """Reads and checks the JSON of a request for a model.

    Attributes:
      schema: the schema of the JSON.

    Args:
      encoders: those of the model; its features are the known fields, others are ignored.
      scored: whether every item needs a score.
      longest: maximum number of items in a request.
    """

    def __init__(self, encoders: Encoders, *, scored: bool, longest: int):
        given: dict[str, Any] = {"scored": scored, "longest": longest}
        self._objects = _reader(encoders, lambda fields: fields, **given)
        self._lists_too = _reader(encoders, _or_by_name, **given)
        self._plain = encoders.plain
        self._columns = [own.name for own in features_of(encoders) if own.side == "item"]
        self.schema = self._objects.json_schema()

    def __call__(self, body: bytes) -> Asked:
        """Read a request.

        Raises:
          pydantic.ValidationError: names each field that cannot be read.
        """
        try:  # a third faster if every item has fields: no Python is called for them
            read = self._objects.validate_json(body)
        except ValidationError:
            read = self._lists_too.validate_json(body)
        ids = [one["id"] for one in read["items"]]
        return Asked(ids, self._raw(read, ids))

    def _raw(self, read: Mapping[str, Any], ids: list[Any]) -> dict[str, Any]:
        """Rewrite a request: lists, as its records are slow once they left a processor's cache."""
        items, user = read["items"], read.get("user")
        scores = [one.get("score") for one in items]
        own = {"history": read.get("history"), "scores": None if None in scores else scores}
        if self._plain:
            return {**own, "user": user, "items": ids}
        fields = [one.get("fields") or {} for one in items]
        columns = {name: [one.get(name) for one in fields] for name in self._columns}
        of_request = read.get("fields") or {}
        return {**of_request, **own, "user_id": user, "items": {"item_id": ids, **columns}}


def _reader(
    encoders: Encoders, form: Callable[[Any], Any], *, scored: bool, longest: int
) -> TypeAdapter[Any]:
    """Make the validator of a request; `form` maps a record of fields to its accepted type."""
    own: dict[str, Any] = {}
    of_item: dict[str, Any] = {}
    for feature in features_of(encoders):
        kind = _kind(feature.name, feature.kind, encoders)
        (of_item if feature.side == "item" else own)[feature.name] = _optional(kind)
    events: Any = list[Event] if encoders.plain else list[Id]
    score: Any = Annotated[FiniteFloat, Field(ge=-LARGEST_SCORE, le=LARGEST_SCORE)]
    if encoders.transforms["score"] == "as_is":
        score = Annotated[FiniteFloat, Field(ge=0, le=1)]
    item = {
        "id": Id,
        "score": score if scored else _optional(score),
        "fields": _optional(form(_record("ItemFields", of_item))),
    }
    request = {
        "id": Id,
        "items": Annotated[
            list[_record("Item", item)],  # type: ignore[misc]
            Field(min_length=1, max_length=longest),
        ],
        "user": _optional(Id),
        "timestamp": _optional(float | str),
        "history": _optional(events),
        "fields": _optional(form(_record("Fields", own))),
    }
    return TypeAdapter(_record("RankRequest", request))


def _kind(name: str, kind: str, encoders: Encoders) -> Any:
    if kind == "vector":
        known = {**encoders.transforms["numbers"], **encoders.transforms["item_numbers"]}
        width = len(known[name]["mean"])
        return Annotated[list[FiniteFloat], Field(min_length=width, max_length=width)]
    return {"id": Id, "bag": list[Id], "numeric": FiniteFloat}[kind]


def _optional(kind: Any) -> Any:
    return NotRequired[kind | None]


def _or_by_name(fields: Any) -> Any:
    return Annotated[fields, BeforeValidator(_by_name)]


def _by_name(given: Any) -> Any:
    """Turn a list of `{"name": ..., "value": ...}`, as Metarank writes it, into an object."""
    if not isinstance(given, list):
        return given
    if not all(
        isinstance(one, dict) and "value" in one and isinstance(one.get("name"), str)
        for one in given
    ):
        raise ValueError('fields are an object, or a list of {"name": ..., "value": ...}')
    return {one["name"]: one["value"] for one in given}


def answer(ids: Sequence[Any], scores: np.ndarray, seconds: float) -> bytes:
    """Write the items of a request, the best first; `took` is in milliseconds."""
    best, values = np.argsort(-scores, kind="stable").tolist(), scores.tolist()
    ranked = [{"item": ids[i], "score": values[i]} for i in best]
    return to_json({"took": round(1000 * seconds, 3), "items": ranked})
