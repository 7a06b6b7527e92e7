"""Read interactions (user, item, rating?, time?) of any published format, in time order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dnr_jax.data import order
from dnr_jax.data.interaction_files import reader, sides
from dnr_jax.data.interaction_files.layouts import LAYOUTS, PUBLISHED, Side
from dnr_jax.data.interaction_files.recognise import COLUMNS, Source, recognise
from dnr_jax.data.interaction_files.settings import InteractionSettings, mapping
from dnr_jax.data.interactions import Features, Interactions, k_core


def inputs(path: Path, settings: InteractionSettings) -> list[Path]:
    """List the files that `read` opens, the interactions first.

    Raises:
      FileNotFoundError, ValueError: what `recognise.recognise` raises.
    """
    source = _source(path, settings)
    return [*source.files, *(file for file, _, _ in _sides(source, settings))]


def read(path: Path, settings: InteractionSettings) -> Interactions:
    """Read the interactions of users and items that have enough interactions.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: an unknown format, or not the configured one; a value that cannot be read (named
        by file and line), or an empty core.
    """
    source = _source(path, settings)
    frame, warnings = reader.read(
        source, mapping("columns", settings.columns), settings.positive_rating
    )
    rows, rated = len(frame), "liked" in frame.columns
    events, names = order.events(frame, tie_seed=settings.tie_seed, repeats=settings.repeats)
    report = {
        "layout": source.layout,
        "files": [file.name for file in source.files],
        "rows": rows,
        "repeated_pairs_dropped": rows - len(events.user),
        "positive_rating": float(settings.positive_rating) if rated else None,
        "warnings": warnings,
    }
    core = k_core(events._replace(report=report), core=settings.core)
    return _compared(_described(names.put(core), source, settings), settings)


def truth(path: Path, settings: InteractionSettings) -> None:
    """Say that the true relevance is not known."""


def _source(path: Path, settings: InteractionSettings) -> Source:
    return recognise(Path(path), settings.layout, mapping("columns", settings.columns))


def _sides(source: Source, settings: InteractionSettings) -> list[tuple[Path, Side, str]]:
    """List files of features: the user's own, else the layout's beside the interactions."""
    found = []
    for name in ("item", "user"):
        if own := getattr(settings, f"{name}_file"):
            path = _beside(source, own)
            columns = mapping(f"{name}_columns", getattr(settings, f"{name}_columns"))
            found.append((path, Side(path.name, "table", columns), name))
    if not settings.item_file and source.layout != COLUMNS:
        published = [
            (path, side, "item")
            for side in LAYOUTS[source.layout].sides
            for path in sorted(source.files[0].parent.glob(side.pattern))
        ]
        found += published[:1]
    return found


def _beside(source: Source, name: str) -> Path:
    """Find a file by its path, or by its name beside the interactions."""
    given = Path(name).expanduser()
    for path in (given, source.files[0].parent / name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"there is no file {name}, nor is it beside {source.files[0]}")


def _described(events: Interactions, source: Source, settings: InteractionSettings) -> Interactions:
    """Add the features of the remaining users and items."""
    features: dict[str, Features] = {"user": {}, "item": {}}
    report: dict[str, Any] = {}
    for path, side, name in _sides(source, settings):
        left = np.unique(getattr(events, name))
        keys = getattr(events, f"{name}_keys")
        raw = left if keys is None else keys[left]
        codes = dict(zip(raw.tolist(), left.tolist(), strict=True))
        features[name] = sides.read_side(path, side, codes)
        known = {n: len(values) / len(left) for n, values in features[name].items()}
        report[f"{name}_features"] = {"file": path.name, "share_known": known}
    return events._replace(
        user_features=features["user"],
        item_features=features["item"],
        report=events.report | report,
    )


def _compared(events: Interactions, settings: InteractionSettings) -> Interactions:
    """Compare the remaining counts with a paper's; only warn, as papers do not report all."""
    if not settings.published:
        return events
    paper = PUBLISHED[settings.published]
    counts = np.unique(events.user, return_counts=True)[1]
    lists = int((counts // paper.slate).sum())
    seen = (len(counts), len(np.unique(events.item)), lists)
    told = (paper.users, paper.items, paper.lists)
    words = "{:,} users, {:,} items and {:,} lists"
    say = f"{settings.published} of {paper.paper} has {words.format(*told)}; here are "
    agrees = seen[:2] == told[:2] and abs(lists - paper.lists) <= 0.015 * paper.lists
    warnings = [] if agrees else [f"{say}{words.format(*seen)}: another release or another filter"]
    found = {"published": told, "seen": seen, "agrees": agrees}
    return events._replace(
        report=events.report
        | {"compared": found, "warnings": [*events.report["warnings"], *warnings]}
    )
