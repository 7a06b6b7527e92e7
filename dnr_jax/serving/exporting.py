"""Export a trained model to a folder that ranks raw requests with jax and numpy alone."""

from __future__ import annotations

import inspect
import os
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from jax import export as jax_export

from dnr_jax import durable, sealed
from dnr_jax.data import direct, raw_values
from dnr_jax.data.folders import alone
from dnr_jax.io.model_files import PARAMETERS
from dnr_jax.io.run_folder import ENCODERS
from dnr_jax.serving import exported_loader, folders, packing, program
from dnr_jax.serving.model import Model, check_direct, load

ABOUT, PROGRAM = "export.json", "program.bin"
FORMAT = 1
SOURCES = {"load.py": exported_loader, "encoder.py": direct, "raw_values.py": raw_values}
CLOSE = 1e-6  # times the largest score: what reading back may differ by
WINDOW = "jax promises to read it for 6 months, and so does one up to 3 weeks older"


def export(
    path: str | os.PathLike[str],
    row: str | None,
    folder: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a self-contained artefact of a trained model.

    Its program is read back and compared with the model before anything is written.

    Args:
      path: the model, as for `load`; also the folder `model` of an earlier artefact.
      row: a row of a run folder; None for a single model.
      folder: made whole or not at all: `load.py` and the sources it reads, the program as
        StableHLO, its description (`export.json`), and the packed model, from which the program
        can be exported again.
      overwrite: whether an existing artefact is replaced, once the new one is complete.

    Returns:
      The content of `export.json`.

    Raises:
      FileExistsError: `folder` exists, and may not be overwritten or is not an artefact.
      FileNotFoundError, ValueError: see `load` and `check_direct`; the model cannot be lowered.
      ArithmeticError: the program that was read back computes other scores.
    """
    target = Path(folder).absolute()
    packing.check_out(target, overwrite=overwrite, mark=ABOUT)
    model = load(path, row)
    check_direct(model, "exported")
    content = bytes(program.lower(model).serialize())
    _check_read_back(model, content)
    with alone(target), packing.place_of(target) as temporary:
        packed = packing.pack(path, row, temporary / folders.EXPORTED)
        durable.write_bytes(temporary / PROGRAM, content)
        for file, module in SOURCES.items():
            durable.write_bytes(temporary / file, _standing_alone(module).encode())
        read = [temporary / PROGRAM, packed / PARAMETERS, *sorted((packed / ENCODERS).iterdir())]
        about = _about(model, {str(f.relative_to(temporary)): sealed.digest(f) for f in read})
        sealed.write(temporary / ABOUT, about)
    return about


def _standing_alone(module: ModuleType) -> str:
    """Return a module's source with imports of this package replaced by the files beside it.

    Raises:
      AssertionError: another import of this package remains.
    """
    source = inspect.getsource(module)
    for file, other in SOURCES.items():
        source = source.replace(f"from {other.__name__} import", f"from {Path(file).stem} import")
    assert "dnr_jax" not in source
    return source


def _check_read_back(model: Model, content: bytes) -> None:
    apart = program.difference(model, jax_export.deserialize(bytearray(content)))
    if not apart <= CLOSE:
        raise ArithmeticError(
            f"the exported program computes scores that differ by {apart:.1e} from the model's: "
            "report this with the model's card"
        )


def _about(model: Model, digests: dict[str, str]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "jax": metadata.version("jax"),
        "dnr_jax": metadata.version("dnr_jax"),
        "window": WINDOW,
        "platforms": list(program.PLATFORMS),
        "sha256": digests,
        "reranker": model.card["reranker"]["name"],
        "candidates": model.encoders.size,
        "least_candidates": model.card["task"]["slate_size"],
        "history": model.encoders.history,
        "score": model.card["score"],
        "reads_scores": model.reads_scores,
    }
