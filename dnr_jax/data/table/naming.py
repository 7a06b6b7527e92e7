"""What a user says about the columns of a table: a TOML or YAML file, or flags.

ignore = ["i_url"]

[columns]                   # the role on the left, your column on the right
request_id = "session"
score = "bm25"

[labels]                    # several labels, and what each counts for
label_click = 1
label_buy = 5

[features]                  # what it describes, and how it is read, where names do not say it
price = "item numeric"
i_year = "numeric"
i_sales = "log"             # a number on a logarithmic scale

[hashed]                    # ids without a fixed vocabulary, and the rows that they share
i_seller = 100000
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from dnr_jax.settings import MOST_INT, find, unknown

SIDES = ("user", "context", "item")
KINDS = ("id", "bag", "numeric", "vector")
LOG = "log"  # for a number: scaled by its logarithm, not by quantiles
YAML = (".yaml", ".yml")
SECTIONS = ("columns", "labels", "features", "hashed", "ignore")

FEWEST = 2  # rows that two different hashes need
EXAMPLES = {"columns": "request_id=session,score=bm25", "hashed": "i_seller=100000"}


def as_in(role: str, column: str = "YOURS") -> str:
    """Say how to name the column of a role, on the command line and in a config."""
    return f"--columns {role}={column} (in a config, config.data.columns)"


class Naming(NamedTuple):
    """What the user says about columns.

    Attributes:
      columns: column by role.
      labels: weight > 0 by label column.
      features: words of `SIDES` and `KINDS`, and `LOG`, by feature column.
      ignored: columns to leave alone.
      hashed: number of rows by hashed feature column; see `hashed`.
    """

    columns: Mapping[str, str] = {}
    labels: Mapping[str, float] = {}
    features: Mapping[str, tuple[str, ...]] = {}
    ignored: tuple[str, ...] = ()
    hashed: Mapping[str, int] = {}


def read(file: str, columns: str = "", labels: str = "", hashed: str = "") -> Naming:
    """Read a schema file and flags; a flag wins over the file.

    Args:
      file: a file in the format above; "" = none.
      columns: `role=column` pairs between commas.
      labels: `column:weight` pairs between commas; a weight may be left out and is then 1.
      hashed: `column=rows` pairs between commas.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file or a flag is invalid.
    """
    content = _content(Path(file).expanduser()) if file else {}
    naming = _naming(content, file)
    flags = dict(_pair(part, "=", "columns", columns) for part in _parts(columns))
    weights = _weights("labels", dict(_label(part) for part in _parts(labels)))
    rows = _rows("hashed", dict(_pair(part, "=", "hashed", hashed) for part in _parts(hashed)))
    return naming._replace(
        columns={**naming.columns, **flags},
        labels=weights or dict(naming.labels),
        hashed={**naming.hashed, **rows},
    )


def _content(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"schema is {path}, but there is no such file")
    form = "YAML" if path.suffix.lower() in YAML else "TOML"
    try:
        text = path.read_text("utf-8-sig")
        content = yaml.safe_load(text) if form == "YAML" else tomllib.loads(text)
    except (tomllib.TOMLDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{path} is not {form}: {said}") from error
    if not isinstance(content or {}, dict):
        raise ValueError(f"{path} holds no sections ({', '.join(SECTIONS)})")
    return content or {}


def _naming(content: Mapping[str, Any], file: str) -> Naming:
    for name in content:
        find_in(file, "section", name, SECTIONS)
    columns, labels, features, rows = (_table(content, name, file) for name in SECTIONS[:4])
    for name, value in columns.items():
        if not isinstance(value, str):
            raise ValueError(f"{file}: columns.{name} is {value!r}: it must be a column's name")
    ignored = content.get("ignore", [])
    if not isinstance(ignored, list) or not all(isinstance(name, str) for name in ignored):
        raise ValueError(f"{file}: ignore is {ignored!r}: it must be a list of columns' names")
    words = {name: _words(file, name, text) for name, text in features.items()}
    weights, hashed = _weights(f"{file}: labels", labels), _rows(f"{file}: hashed", rows)
    return Naming(columns, weights, words, tuple(ignored), hashed)


def _table(content: Mapping[str, Any], name: str, file: str) -> dict[str, Any]:
    table = content.get(name, {})
    if not isinstance(table, dict):
        raise ValueError(f"{file}: {name} is {table!r}: it must be a section, [{name}]")
    return table


def _words(file: str, name: str, text: Any) -> tuple[str, ...]:
    words = tuple(text.split()) if isinstance(text, str) else ()
    if not words:
        raise ValueError(f"{file}: features.{name} is {text!r}: write e.g. 'item numeric'")
    for word in words:
        find_in(f"{file}: features.{name}", "side or kind", word, (*SIDES, *KINDS, LOG))
    return words


def find_in(place: str, kind: str, name: str, known: Iterable[str]) -> None:
    """Raise `ValueError` unless `name` is known; the message begins with its place."""
    try:
        find(kind, name, dict.fromkeys(known))
    except ValueError:
        raise ValueError(f"{place}: {unknown(kind, name, known)}") from None


def _weights(place: str, given: Mapping[str, Any]) -> dict[str, float]:
    for name, weight in given.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not math.isfinite(weight) or weight <= 0:
            raise ValueError(f"{place}.{name} is {weight!r}: a label's weight is a number above 0")
    return {name: float(weight) for name, weight in given.items()}


def _rows(place: str, given: Mapping[str, Any]) -> dict[str, int]:
    for name, rows in given.items():
        whole = isinstance(rows, int) or (isinstance(rows, str) and rows.strip().isdecimal())
        if isinstance(rows, bool) or not whole or not FEWEST <= int(rows) < MOST_INT:
            raise ValueError(
                f"{place}.{name} is {rows!r}: it must be a number of rows, {FEWEST} or more"
            )
    return {name: int(rows) for name, rows in given.items()}


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _pair(part: str, sign: str, knob: str, given: str) -> tuple[str, str]:
    left, found, right = part.partition(sign)
    if not found or not left.strip() or not right.strip():
        raise ValueError(f"{knob} is {given!r}: write pairs, as in {EXAMPLES[knob]}")
    return left.strip(), right.strip()


def _label(part: str) -> tuple[str, Any]:
    name, _, weight = part.rpartition(":") if ":" in part else (part, "", "1")
    try:
        return name.strip(), float(weight)
    except ValueError:
        raise ValueError(
            f"labels: {weight!r} is not a number; write e.g. label_click:1,label_buy:5"
        ) from None
