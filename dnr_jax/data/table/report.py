"""Findings about a table, as numbers for programs and as sentences for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import polars as pl

from dnr_jax.data.store import SPLITS
from dnr_jax.data.table import hashed
from dnr_jax.data.table.columns import Typed
from dnr_jax.data.table.examination import Examined
from dnr_jax.data.table.history import Past
from dnr_jax.data.table.reader import collect
from dnr_jax.data.table.schema import Schema

NAMED = 12  # columns named in a sentence
CROWDED = 0.01  # share of a hashed column's values that share both rows
NUMBERS = (", numeric (", ", vector (")
FEW = 100  # requests; from this number on, `half_width` is at most 0.1
MEASURED = {"valid": "epochs and models are chosen", "test": "models are compared"}


def facts(seen: Examined, *, weight_cap: float) -> dict[str, Any]:
    """Describe a table that was examined but not yet built; JSON-able.

    Args:
      seen: the table.
      weight_cap: upper limit of the weight 1 / propensity.
    """
    table, requests = seen.table, seen.requests
    lengths = requests["rows"].to_numpy()
    found: dict[str, Any] = {
        "schema": described(table.schema, table),
        "labels": str(seen.grading),
        "split_by": seen.splits,
        "rows": seen.rows,
        "requests": len(requests),
        "list_length": _spread(lengths),
        "lists_of_one": int((lengths == 1).sum()),
        "splits": split_counts(requests),
    }
    if "propensity" in table.schema.columns:
        found["propensities"] = _propensities(table, weight_cap)
    collisions = hashed.collisions(table)
    found |= {"hashed": collisions} if collisions else {}
    if "timestamp" in requests.columns:
        ends = requests["timestamp"].to_numpy()[[0, -1]].astype("datetime64[us]")
        found["time"] = {"unit": table.time_unit, "first": str(ends[0]), "last": str(ends[1])}
        found["requests_over_several_times"] = int(requests["later"].sum())
    if "user_id" in requests.columns:
        found["users"] = requests["user_id"].drop_nulls().n_unique()
        found["requests_without_user"] = requests["user_id"].null_count()
        found["users_new_in_test"] = _new(requests)
    return found


def _propensities(table: Typed, cap: float) -> dict[str, float]:
    value = pl.col("propensity")
    counts = [value.count().alias("given"), (1 / value > cap).sum().alias("capped")]
    return {
        "cap": cap,
        **collect(table.frame.select(counts), table.source.files).row(0, named=True),
    }


def described(schema: Schema, table: Typed) -> dict[str, Any]:
    """Say how each column was understood."""
    types = table.source.types
    return {
        "columns": {role: f"{name} ({types[name]})" for role, name in schema.columns.items()},
        "labels": dict(schema.labels),
        "features": {
            f.name: f"{f.side}, {f.kind} ({types[f.name]})"
            + ", hashed" * bool(f.buckets)
            + ", by log" * f.log
            for f in schema.features
        },
        "ignored": list(schema.ignored),
    }


def split_counts(requests: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Count requests, rows and positives of every split."""
    found = {}
    for number, name in enumerate(SPLITS):
        own = requests.filter(pl.col("split") == number)
        found[name] = {
            "requests": len(own),
            **{column: int(own[column].sum()) for column in ("rows", "judged", "positives")},
            "requests_without_positive": int((own["positives"] == 0).sum()),
        }
    return found


def _spread(values: np.ndarray) -> dict[str, float]:
    return {
        "min": int(values.min()),
        "median": float(np.median(values)),
        "mean": float(values.mean()),
        "max": int(values.max()),
    }


def _new(requests: pl.DataFrame) -> float:
    """Return the share of test requests whose user has no training request."""
    test = requests.filter(pl.col("split") == SPLITS.index("test"))
    train = requests.filter(pl.col("split") == SPLITS.index("train"))
    known = test["user_id"].is_in(train["user_id"].drop_nulls().implode()).fill_null(False)
    return float(1 - known.to_numpy().mean())


def written(
    found: Mapping[str, Any],
    counts: Mapping[str, Counter[str]],
    past: Past,
    *,
    size: int,
    lengths: np.ndarray,
    score: str,
) -> dict[str, Any]:
    """Add counts of the arrays to the `facts` of a table, as numbers and as sentences.

    Args:
      found: the result of `facts`.
      counts: results of `arrays.tally`, by split.
      past: where histories come from.
      size: maximum number of candidates N of a request.
      lengths: `int [R]`, candidates of each request in the table.
      score: transform of the first-stage scores; "" = there are none.
    """
    lengths = lengths.astype(np.int64)
    splits = {name: {**found["splits"][name], **counts[name]} for name in SPLITS}
    everything = {
        **found,
        "splits": splits,
        "candidates": size,
        "lists_cut": int((lengths > size).sum()),
        "candidates_cut": int(np.maximum(lengths - size, 0).sum()),
        "history": past.words,
        "history_events_not_before_request": past.dropped,
        "score": score or None,
    }
    return everything | {"findings": findings(everything), "warnings": warnings(everything)}


def findings(found: Mapping[str, Any]) -> list[str]:
    """Say how the table was understood."""
    length = found["list_length"]
    return [
        *_of_columns(found["schema"]),
        f"{found['rows']} rows, {found['requests']} requests of {length['min']} to "
        f"{length['max']} candidates (median {length['median']:g})",
        f"splits: {found['split_by']}",
        f"labels: {found['labels']}",
        *_of_propensities(found.get("propensities")),
        *_of_hashed(found.get("hashed", {})),
        *([f"histories: {found['history']}"] if "history" in found else []),
        *_of_news(found),
        *_of_times(found.get("time")),
    ]


def _of_columns(schema: Mapping[str, Any]) -> list[str]:
    features, ignored = schema["features"], schema["ignored"]
    numbers = any(word in text for text in features.values() for word in NUMBERS)
    logs = [name for name, text in features.items() if text.endswith("by log")]
    columns = [
        *schema["columns"].items(),
        *((f"label, weight {w:g}", n) for n, w in schema["labels"].items()),
    ]
    return [
        "columns: " + ", ".join(f"{role} = {name}" for role, name in columns),
        *([f"features: {_some(features)}"] if features else []),
        *(["numbers: by quantiles of training; vectors: by mean and spread"] if numbers else []),
        *([f"numbers by log: {_some(logs)}"] if logs else []),
        *([f"columns left alone: {_some(ignored)}"] if ignored else []),
    ]


def _of_propensities(count: Mapping[str, float] | None) -> list[str]:
    if count is None:
        return []
    return [
        f"propensities: a label counts 1 / propensity in the loss, at most {count['cap']:g} "
        f"({count['capped']} of {count['given']} are above); metrics count all alike"
    ]


def _of_hashed(columns: Mapping[str, Mapping[str, int]]) -> list[str]:
    return [
        f"hashed: {count['values']} values of {name} in {count['rows']} rows, two a value; "
        f"{_share(count):.2%} of them share both with another"
        for name, count in columns.items()
    ]


def _of_news(found: Mapping[str, Any]) -> list[str]:
    """Say how much of the test split was not seen in training."""
    test, new = found["splits"]["test"], []
    if "unknown_items" in test:
        share = test["unknown_items"] / max(test["candidates"], 1)
        new.append(f"{share:.1%} of the candidates are items that training lacks")
    if "users" in found:
        new.append(f"{found['users_new_in_test']:.1%} of the requests have a new user")
    return [f"test: {', '.join(new)}"] if new else []


def _of_times(time: Mapping[str, str] | None) -> list[str]:
    return [f"times: {time['unit']}, from {time['first']} to {time['last']}"] if time else []


def _some(names: Collection[str]) -> str:
    """List names, not too many of them."""
    left = len(names) - NAMED
    return ", ".join(list(names)[:NAMED]) + (f" and {left} more" if left > 0 else "")


def _share(count: Mapping[str, int]) -> float:
    return count["share_both"] / max(count["values"], 1)


def few(splits: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Warn of splits with too few requests for a reliable mean."""
    said = []
    for name, purpose in MEASURED.items():
        count = splits[name]["requests"] - splits[name]["requests_without_positive"]
        if count < FEW:
            said.append(
                f"{name}: {purpose} on {count} request{'s' * (count > 1)} with a positive, too "
                "few: the 95 % interval of a mean metric can be as wide as "
                f"±{half_width(count):.2f} (±{half_width(FEW):.2f} with {FEW} requests)"
            )
    return said


def before_arrays(found: Mapping[str, Any]) -> list[str]:
    """Warn, from `facts`, of few requests, and of requests without a user or with several times."""
    said, times = few(found["splits"]), found.get("requests_over_several_times")
    if times:
        said.append(f"{times} requests have rows of several times: the earliest counts")
    if found.get("requests_without_user"):
        said.append(f"{found['requests_without_user']} requests have no user")
    return said


def half_width(requests: int) -> float:
    """Bound half the 95 % interval of a mean: values in [0, 1] deviate by at most 1 / 2."""
    return float(1.96 * 0.5 / np.sqrt(requests))


def warnings(found: Mapping[str, Any]) -> list[str]:
    """Say what a user should know before trusting the numbers."""
    crowded = [name for name, count in found.get("hashed", {}).items() if _share(count) > CROWDED]
    said = before_arrays(found)
    said += [
        f"{name}: {CROWDED:.0%} or more of its values share both rows: hash it to more"
        for name in crowded
    ]
    if not found["score"]:
        said.append("no score and no rank: leave out the rows that read a first stage's scores")
    if found["candidates_cut"]:
        said.append(
            f"{found['lists_cut']} lists have more than {found['candidates']} candidates: "
            f"{found['candidates_cut']} that the first stage puts last were cut"
        )
    if found["history_events_not_before_request"]:
        said.append(
            f"{found['history_events_not_before_request']} history events are not earlier "
            "than their request and were left out"
        )
    for name, counts in found["splits"].items():
        if counts["positives_cut"]:
            said.append(f"{name}: {counts['positives_cut']} positives are cut or of weight 0")
        if counts["requests_without_positive"]:
            what = "left out" if name == SPLITS[0] else "excluded from metrics"
            said.append(
                f"{name}: {counts['requests_without_positive']} requests have no positive: {what}"
            )
    return said
