"""Reads the config file of `--config FILE.py:PRESET` or `--config NAME:PRESET`."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from dnr_jax.settings import unknown

_PACKAGE = Path(__file__).resolve().parent
# The packaged configs: in an installed wheel, and in a clone.
_HOMES = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
_ROOM = "configs"
_NO_EXPERIMENT = ("__init__", "common")


def load(argument: str) -> dict[str, Any]:
    """Return the values that a config file sets, as nested plain data.

    Args:
      argument: a file, or the bare name of a packaged config; either may end in `:PRESET`.

    Raises:
      ValueError: the file does not exist, fails, or returns no config; the message is one line.
    """
    name, colon, preset = argument.partition(":")
    path = _find(name)
    with _importable(path.parent):
        get_config = getattr(_run(path), "get_config", None)
        if not callable(get_config):
            raise ValueError(
                f"{name} has no function get_config: it is not a config of this program"
            )
        config = _call(path, get_config, *([preset] if colon else []))
    if not isinstance(config, Mapping | ConfigDict):
        raise ValueError(f"{name}: get_config returned {config!r}: it must return a ConfigDict")
    plain = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    return plain


def packaged() -> list[str]:
    """List the names of the packaged configs."""
    return sorted(path.stem for path in _home().glob("*.py") if path.stem not in _NO_EXPERIMENT)


def _home() -> Path:
    return next((home for home in _HOMES if home.is_dir()), _HOMES[0])


def _find(name: str) -> Path:
    path = Path(name).expanduser()
    if path.suffix == ".py" or len(path.parts) > 1:
        if not path.is_file():
            known = ", ".join(packaged())
            raise ValueError(f"there is no config file {name!r}; packaged configs: {known}")
        return path.resolve()
    if name not in packaged():
        raise ValueError(unknown("packaged config", name, packaged()))
    return _home() / f"{name}.py"


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let a config import its neighbours, or else the packaged configs, as `configs.NAME`."""
    package = ModuleType(_ROOM)
    package.__path__ = [str(folder if folder.name == _ROOM else _home())]
    before = _pop_room()
    sys.modules[_ROOM] = package
    try:
        yield
    finally:
        _pop_room()
        sys.modules.update(before)


def _pop_room() -> dict[str, ModuleType]:
    """Remove the modules of the configs' folder from `sys.modules`, and return them."""
    names = [n for n in sys.modules if n == _ROOM or n.startswith(f"{_ROOM}.")]
    return {name: sys.modules.pop(name) for name in names}


def _run(path: Path) -> ModuleType:
    """Execute a config file as its own module."""
    module = ModuleType(path.stem)
    module.__file__ = str(path)

    def execute() -> None:
        exec(compile(path.read_bytes(), path, "exec"), module.__dict__)

    _call(path, execute)
    return module


def _call(path: Path, function: Any, *arguments: str) -> Any:
    """Call a function of a config file; its exceptions become one-line errors."""
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:
        told = " ".join(str(error).split())
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else (lines or [None])[-1]
        where = f"{path.name}, line {line}" if line else path.name
        raise ValueError(f"config file {where}: {type(error).__name__}: {told}") from None
