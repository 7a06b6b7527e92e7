"""MovieLens (Harper and Konstan 2015): its files as interactions, and a simulator of them."""

from __future__ import annotations

from pathlib import Path

from dnr_jax.data.interactions import Interactions, k_core
from dnr_jax.data.movielens import reader, truth
from dnr_jax.data.movielens.settings import MovieLensSettings


def inputs(path: Path, settings: MovieLensSettings) -> list[Path]:
    """List the files that `read` and `truth.truth` open.

    Raises:
      FileNotFoundError, ValueError: what `reader.inputs` raises.
    """
    del settings  # all are read whatever they say
    known = path / truth.FILE
    return [*reader.inputs(path), *([known] if known.exists() else [])]


def read(path: Path, settings: MovieLensSettings) -> Interactions:
    """Read the ratings of users and items that have enough ratings.

    Raises:
      FileNotFoundError: there are no files of a known name.
      ValueError: a broken file, an empty core, or a full MovieLens-1M whose 20-core is not the
        published one.
    """
    ratings = reader.read(
        path, positive_rating=settings.positive_rating, tie_seed=settings.tie_seed
    )
    core = k_core(ratings, core=settings.core)
    reader.check_published(core)
    return core
