"""Pack a row of a run folder into its own model folder, which can be copied anywhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dnr_jax import durable, sealed
from dnr_jax.data.folders import alone, new_folder
from dnr_jax.io import model_files
from dnr_jax.io.run_folder import CATALOGUE, ENCODERS, RETRIEVER
from dnr_jax.serving import card, folders, model


def check_out(folder: Path, *, overwrite: bool, mark: str = model_files.CARD) -> None:
    """Refuse a model folder name that cannot be used, before any work.

    Args:
      folder: the name.
      overwrite: whether a folder of the same kind may be replaced.
      mark: the file that identifies such a folder.

    Raises:
      FileExistsError: it exists, and may not be overwritten or is of another kind.
    """
    if folder.exists() and not overwrite:
        raise FileExistsError(f"{folder} exists already: choose another name, or --overwrite")
    if folder.exists() and not (folder / mark).is_file():
        kind = "model folder" if mark == model_files.CARD else "exported model"
        raise FileExistsError(f"{folder} is no {kind}, and not replaced: choose another name")


def pack(
    run_folder: str | os.PathLike[str],
    row: str | None,
    folder: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> Path:
    """Copy one trained model into a self-contained folder that can be copied anywhere.

    Args:
      run_folder: where it is now, as for `load`.
      row: which of the run's models.
      folder: made whole or not at all.
      overwrite: whether an existing model is replaced, once the new one is complete.

    Returns:
      The folder: `load` takes it without a row.

    Raises:
      FileExistsError: see `check_out`.
      FileNotFoundError, ValueError: see `load`; the model is loaded first.
    """
    target = Path(folder).absolute()
    check_out(target, overwrite=overwrite)
    home, source = folders.find(Path(run_folder), row)
    whole = card.completed(model.load(run_folder, row).card, home)
    with alone(target), place_of(target) as temporary:
        for file in (source / model_files.PARAMETERS, home / CATALOGUE):
            shutil.copyfile(file, temporary / file.name)
        for shared in (ENCODERS, RETRIEVER):
            if (home / shared).is_dir():
                shutil.copytree(home / shared, temporary / shared)
        sealed.write(temporary / model_files.CARD, whole)
    return target


@contextmanager
def place_of(target: Path) -> Iterator[Path]:
    """Yield a new folder that replaces `target` once the block ends without an error."""
    if not target.exists():
        with new_folder(target) as temporary:
            yield temporary
        return
    fresh, old = (target.with_name(f".{target.name}.{word}") for word in ("new", "old"))
    for left in (fresh, old):
        durable.remove(left)
    with new_folder(fresh) as temporary:
        yield temporary
    os.replace(target, old)
    durable.publish(fresh, target)
    durable.remove(old)
