"""From a row of a run folder to a model folder of its own, which can be copied anywhere."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dnr_jax.data.folders import new_folder
from dnr_jax.io import model_files
from dnr_jax.io.run_folder import CATALOGUE, ENCODERS
from dnr_jax.serving import folders, model


def pack(
    run_folder: str | os.PathLike[str], row: str | None, folder: str | os.PathLike[str]
) -> Path:
    """Copy one trained model into a folder that holds all it needs, and can be copied anywhere.

    Args:
      run_folder: where it is now, as of `load`.
      row: which of the run's models.
      folder: made whole or not at all; must not exist.

    Returns:
      The folder: `load` takes it without a row.

    Raises:
      FileExistsError: `folder` is there already.
      FileNotFoundError, ValueError: see `load`; the model is loaded first.
    """
    target = Path(folder).absolute()
    home, source = folders.find(Path(run_folder), row)
    model.load(run_folder, row)
    with new_folder(target) as temporary:
        for file in (source / model_files.CARD, source / model_files.PARAMETERS, home / CATALOGUE):
            shutil.copyfile(file, temporary / file.name)
        shutil.copytree(home / ENCODERS, temporary / ENCODERS)
    return target
