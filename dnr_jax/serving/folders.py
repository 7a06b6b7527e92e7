"""Locate a trained model: among the rows of a run folder, or packed in its own folder."""

from __future__ import annotations

from pathlib import Path

from dnr_jax import settings
from dnr_jax.io import model_files
from dnr_jax.io.run_folder import MODELS

EXPORTED = "model"  # the model's own folder in an exported one


def find(path: Path, row: str | None) -> tuple[Path, Path]:
    """Return the folder of encoders and catalogue, and that of card and parameters.

    Args:
      path: a run folder, a packed model, or the folder of one row inside a run.
      row: which model of a run; None if `path` holds a single model.

    Raises:
      FileNotFoundError, ValueError: see `model.load`.
    """
    path = path.absolute()
    if not path.exists():
        raise FileNotFoundError(f"there is no run folder or model {path}")
    if (path / model_files.CARD).is_file():
        if row is not None:
            raise ValueError(f"{path} is one model, not a run folder: leave row={row!r} out")
        return (path.parents[1] if path.parent.name == MODELS else path), path
    known = sorted(card.parent.name for card in (path / MODELS).glob(f"*/{model_files.CARD}"))
    if row is None:
        raise ValueError(f"{path} is not the folder of one model: {_instead(path, known)}")
    if row not in known:
        raise ValueError(f"{path}: {settings.unknown('trained model of a row', row, known)}")
    return path, path / MODELS / row


def _instead(path: Path, rows: list[str]) -> str:
    """Say what to give instead of a folder that does not hold a single model."""
    if rows:
        return f"say by row (--row) which of its models: {', '.join(rows)}"
    inner = path / EXPORTED
    if (inner / model_files.CARD).is_file():
        return f"it is an exported one, and the model in it is {inner}"
    return "it holds no trained model"
