"""A trained model as files: a card that describes it, and its parameters, both sealed by hashes.

Layout: `<folder>/model.json` and `<folder>/parameters.npz`, an archive of plain arrays named by
their path in the tree. The card is written last: without it there is no model.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dnr_jax import durable, sealed
from dnr_jax.json_files import DamagedError
from dnr_jax.named_arrays import flatten, unflatten
from dnr_jax.types import Params

SEPARATOR = "/"  # in the names of arrays
CARD = "model.json"
PARAMETERS = "parameters.npz"
FORMAT = 1
KEYS = ("format", "parameters_sha256")
# Keys of every card of this format.
NEEDED = (
    *("reranker", "dtype", "deployed_order", "task", "data", "score"),
    *("encoders_sha256", "catalogue_sha256"),
)
CURE = "restore the folder from a copy, or start its run again to make it anew"


def save(folder: Path, card: Mapping[str, Any], params: Params) -> None:
    """Write a model; it is on disk when this returns.

    Args:
      folder: made if missing; an existing model is replaced.
      card: JSON-able; everything needed to rebuild the model, and what users want to know.
      params: nested dicts of arrays, their keys without "/"; `{}` for a model that learns nothing.
    """
    archive = io.BytesIO()
    np.savez(archive, **flatten(params, SEPARATOR))  # type: ignore[arg-type]
    content = archive.getvalue()
    durable.write_bytes(folder / PARAMETERS, content)
    seal = {"format": FORMAT, "parameters_sha256": hashlib.sha256(content).hexdigest()}
    sealed.write(folder / CARD, {**card, **seal})


def load(folder: Path) -> tuple[dict[str, Any], Params]:
    """Return the card and the parameters of a model that `save` has written.

    Raises:
      FileNotFoundError: there is no model.
      DamagedError: a file is missing, incomplete or changed.
      ValueError: it was written in a later format than this version knows.
    """
    card = sealed.read(folder / CARD, KEYS, cure=CURE)
    _check_format(folder, card)
    path = folder / PARAMETERS
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != card["parameters_sha256"]:
        raise DamagedError(f"{path} is missing or changed: {CURE}")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return card, unflatten({name: arrays[name] for name in arrays.files}, SEPARATOR)


def _check_format(folder: Path, card: Mapping[str, Any]) -> None:
    if card["format"] != FORMAT:
        newer = card["format"] > FORMAT
        cure = "install a newer dnr_jax" if newer else "train it anew, or install an older dnr_jax"
        raise ValueError(
            f"model {folder} has format {card['format']}, this version reads format {FORMAT}: "
            f"{cure}"
        )
    missing = [name for name in NEEDED if name not in card]
    if missing:
        raise ValueError(
            f"model {folder} was written before its card said {', '.join(missing)}: train it anew, "
            "by the same command in a new folder"
        )
