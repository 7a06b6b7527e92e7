"""The rows of a result table: a config's base knobs with each row's own set on top."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Row(NamedTuple):
    """One row of the table.

    Attributes:
      key: its name in `config.rows`, and of its folders.
      model: what `results.json` calls it.
      label: what a reader sees.
      config: the whole config as nested plain dicts, the row's knobs applied.
      sweep: `{"knob": name, "value": number}` of a row that is one point of a figure, else None.
    """

    key: str
    model: str
    label: str
    config: dict[str, Any]
    sweep: dict[str, Any] | None = None


def resolve(config: Mapping[str, Any]) -> list[Row]:
    """Return the rows to run, in table order.

    Args:
      config: the resolved config as nested plain dicts.

    Raises:
      ValueError: `config.table` is empty, repeats a row or names an unknown one, or a row sets a
        knob that does not exist.
    """
    wanted = [name.strip() for name in config["table"].split(",") if name.strip()]
    for name in wanted:
        if name not in config["rows"]:
            raise ValueError(f"config.table: {unknown('row', name, config['rows'])}")
    if not wanted or len(set(wanted)) < len(wanted):
        raise ValueError(f"config.table is {config['table']!r}: name each row to run once")
    return [_row(config, key) for key in wanted]


def _row(config: Mapping[str, Any], key: str) -> Row:
    row = config["rows"][key]
    base = {name: value for name, value in config.items() if name not in ("rows", "table")}
    merged = _merge(base, row["set"], f"rows.{key}.set")
    reranker = config["reranker"]["name"]
    label = row["label"].format(reranker=reranker.upper())
    return Row(key, row["model"].format(reranker=reranker), label, merged, row.get("sweep"))


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Copy `base` with `changes` applied, refusing names that `base` does not have."""
    merged = copy.deepcopy(dict(base))
    for name, value in changes.items():
        if name not in base:
            raise ValueError(f"config.{place}: {unknown('knob', name, base)}")
        nested = isinstance(value, Mapping)
        merged[name] = _merge(base[name], value, f"{place}.{name}") if nested else value
    return merged


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that `name` is not a known `kind`, with the nearest known one and all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"there is no {kind} {name!r}{hint} Known: {', '.join(known)}"
