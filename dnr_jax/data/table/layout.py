"""How coded rows are laid out as arrays, and the encoders kept for later raw requests."""

from __future__ import annotations

import polars as pl

from dnr_jax.data.encoders import Encoders, Vocabulary
from dnr_jax.data.settings import Shape
from dnr_jax.data.table import coding, scales
from dnr_jax.data.table.arrays import Recipe
from dnr_jax.data.table.columns import Typed
from dnr_jax.data.table.fit import Learned, keys
from dnr_jax.data.table.settings import TableSettings
from dnr_jax.types import FeatureSpec


def recipe_of(
    table: Typed, settings: TableSettings, shape: Shape, learned: Learned, seed: int
) -> Recipe:
    """Lay out the columns.

    A bag takes one column per value of its longest list, at most `settings.bag`; a hashed value
    takes two.
    """
    user, context, item = (
        {
            feature.name: min(settings.bag, learned.longest.get(feature.name, 1))
            * (2 if feature.buckets else 1)
            for feature in table.schema.of(side, "id", "bag")
        }
        for side in ("user", "context", "item")
    )
    score = settings.score if coding.has_score(table.schema.columns) else ""
    of_item = [feature.name for feature in table.schema.of("item", "numeric", "vector")]
    numbers = {name: scale for name, scale in learned.scales.items() if name not in of_item}
    own = {name: learned.scales[name] for name in of_item}
    return Recipe(shape, settings.history, score, user, context, item, numbers, own, seed)


def encoders_of(table: Typed, learned: Learned, recipe: Recipe, requests: pl.DataFrame) -> Encoders:
    """Collect the encoders of raw requests; a bag's name occurs several times in the columns."""
    kinds = {feature.name: feature.kind for feature in table.schema.features}
    sides = {"user": recipe.user, "context": recipe.context, "item": recipe.item}
    user, context, item = (
        tuple(name for name, width in side.items() for _ in range(width)) for side in sides.values()
    )
    spec = FeatureSpec(
        user=("user_id", *user),
        context=context,
        history=("item_id",),
        item=("item_id", *item),
        sizes={name: words.size for name, words in learned.vocabularies.items()},
        numbers=scales.names(recipe.numbers),
        item_numbers=scales.names(recipe.item_numbers),
    )
    words = dict(learned.vocabularies)
    buckets = {f.name: f.buckets for f in table.schema.features if f.buckets}
    if requests["request_id"].dtype == pl.String:  # so results can be matched to their raw ids
        words["request_id"] = Vocabulary(keys(requests["request_id"]))
    return Encoders(
        spec=spec,
        size=recipe.shape.size,
        history=recipe.history,
        vocabularies=words,
        tables={},
        transforms={
            "score": recipe.score,
            "kinds": kinds,
            "widths": sides,
            "numbers": scales.plain(recipe.numbers),
            "item_numbers": scales.plain(recipe.item_numbers),
            **({"hashed": buckets} if buckets else {}),
        },
    )
