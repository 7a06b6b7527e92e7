"""New logs for an earlier model: its encoders are kept, and new values are added."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from dnr_jax.data import encoders
from dnr_jax.data.encoders import Encoders, Vocabulary
from dnr_jax.data.settings import Shape
from dnr_jax.data.table import scales
from dnr_jax.data.table.arrays import Recipe
from dnr_jax.data.table.columns import Typed
from dnr_jax.data.table.naming import Naming
from dnr_jax.data.table.reader import Source
from dnr_jax.data.table.schema import PREFIXES, features_of
from dnr_jax.data.table.settings import TableSettings

_TEXT, _WHOLE = "text", "whole numbers"


def read(settings: TableSettings) -> Encoders | None:
    """Read the encoders that `settings.known` names; None if it is empty.

    Raises:
      FileNotFoundError: the folder has no encoders.
      DamagedError: they differ from what was written.
    """
    if not settings.known:
        return None
    folder = Path(settings.known).expanduser()
    if not (folder / encoders.FILE).is_file():
        raise FileNotFoundError(f"data.known is {settings.known}, which holds no {encoders.FILE}")
    return encoders.load(folder)


def naming(given: Naming, earlier: Encoders, source: Source) -> Naming:
    """Read exactly the features of the earlier model, in the same way.

    Raises:
      ValueError: the table lacks a feature.
    """
    features = {feature.name: feature for feature in features_of(earlier)}
    missing = [name for name in features if name not in source.types]
    if missing:
        raise ValueError(
            f"{source.place} has no column {', '.join(missing)}, which the earlier model reads: "
            "give it, empty where it is not known, or train a new model"
        )
    words = {name: (feature.side, feature.kind) for name, feature in features.items()}
    named = {*given.columns.values(), *given.labels, *words}
    new = [name for name in source.types if name[:2] in PREFIXES and name not in named]
    hashed = {name: feature.buckets for name, feature in features.items() if feature.buckets}
    return given._replace(features=words, ignored=(*given.ignored, *new), hashed=hashed)


def check_ids(table: Typed, earlier: Encoders) -> None:
    """Refuse ids whose type differs from those that the earlier model knows.

    Raises:
      ValueError: names the column and both types.
    """
    own = table.frame.collect_schema()
    for name, kind in own.items():
        words = earlier.vocabularies.get(name)
        if words is None or not (len(words.keys) or words.buckets):
            continue
        was = _TEXT if words.keys.dtype.kind == "U" else _WHOLE
        now = _TEXT if getattr(kind, "inner", kind) == pl.String else _WHOLE
        if was != now:
            column = table.schema.columns.get(name, name)
            raise ValueError(
                f"{table.source.place}: column {column} holds {now}, but {was} when the earlier "
                "model was trained: write its ids as they were"
            )


def extended(old: Vocabulary, new: Vocabulary) -> Vocabulary:
    """Add new values to a vocabulary; all known ones stay."""
    if not len(old.keys) or not len(new.keys):
        return old if len(old.keys) else new
    return Vocabulary(np.union1d(old.keys, new.keys))


def recipe_of(earlier: Encoders, shape: Shape, seed: int) -> Recipe:
    """Lay out arrays like those of the earlier model, with its N."""
    transforms = earlier.transforms
    user, context, item = (transforms["widths"][side] for side in ("user", "context", "item"))
    numbers, own = (scales.read(transforms[name]) for name in ("numbers", "item_numbers"))
    wide = shape._replace(size=earlier.size)
    return Recipe(
        wide, earlier.history, transforms["score"], user, context, item, numbers, own, seed
    )
