"""Read RecFlow's pickles without running code from them.

A pickle can name any function and call it. Here, each name that these files may use is replaced by
a function of this module that accepts only plain numbers; all other names are refused.
"""

from __future__ import annotations

import pickle
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dnr_jax.data.recflow import memo
from dnr_jax.data.recflow.files import torn

_PLAIN = re.compile(r"[<>|=]?[biuf]\d{1,2}")


class RefusedPickleError(ValueError):
    """A pickle asks for something that a RecFlow file has no reason to hold."""


def load_pickle(path: Path) -> dict[int, Any]:
    """Load a dictionary of arrays, or of dictionaries of them, keyed by request id.

    Raises:
      ValueError: the file is damaged, is not a dictionary keyed by numbers, asks for code outside
        a short list, or needs more memory than there is.
    """
    try:
        _check_memo(path)
        with open(path, "rb") as file:
            content = _Unpickler(file).load()
    except RefusedPickleError as error:
        raise ValueError(
            f"{path} is refused: {error}; RecFlow's pickles hold numpy arrays in dictionaries "
            "only, so do not trust this file"
        ) from error
    except MemoryError as error:
        raise torn(path, "it asks for more memory than there is") from error
    except (EOFError, pickle.UnpicklingError, LookupError, ValueError, TypeError) as error:
        raise torn(path, f"broken pickle ({error})") from error
    except (AttributeError, OverflowError, RecursionError) as error:
        raise torn(path, f"broken pickle ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a dictionary")
    return {_request(path, key): _plain(value) for key, value in content.items()}


def _check_memo(path: Path) -> None:
    """Refuse a pickle that names more places of its memo than a file of its size can fill."""
    size = path.stat().st_size
    place = memo.largest_place(path) if size else 0
    if place > size:
        raise RefusedPickleError(f"place {place:,} of a memo in a file of {size:,} bytes")


def _request(path: Path, key: Any) -> int:
    if isinstance(key, bool) or not isinstance(key, int | np.integer):
        raise ValueError(f"{path} has a key {key!r}, expected numbers of requests")
    return int(key)


def _plain(value: Any) -> Any:
    """Replace the stand-ins of arrays by the arrays."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return value.made() if isinstance(value, _Array) else value


class _Type:
    """Stands for a `numpy.dtype`: a kind and a size, to which the pickle adds the byte order."""

    def __init__(self, code: str, align: Any = False, copy: Any = False):
        if not isinstance(code, str) or not _PLAIN.fullmatch(code):
            raise RefusedPickleError(f"an array of {code!r} is not allowed, only plain numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, *inner = state
        if any(part is not None for part in inner[:3]) or order not in ("<", ">", "|", "="):
            raise RefusedPickleError("an array of structures is not allowed")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands for a `numpy.ndarray`: empty until the pickle hands it its content."""

    def __init__(self) -> None:
        self._array = np.zeros(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, content = state
        self._array = _frombuffer(content, kind, shape, "F" if fortran else "C").made()

    def made(self) -> np.ndarray:
        return self._array


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    del kind, shape, code  # always an empty array of bytes: its state follows
    return _Array()


def _frombuffer(content: Any, kind: Any, shape: Any, order: str) -> _Array:
    if not isinstance(kind, _Type) or not isinstance(content, bytes | bytearray):
        raise RefusedPickleError("an array of objects is not allowed")
    made = _Array()
    flat: Any = np.frombuffer(content, kind.dtype)
    made._array = flat.reshape(shape, order=order)
    return made


def _scalar(kind: Any, content: Any) -> Any:
    return _frombuffer(content, kind, (1,), "C").made()[0]


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedPickleError(f"encoding by {encoding!r} is not allowed")
    return text.encode("latin-1")


def _no_bytes() -> bytes:
    return b""


def _default_tuple() -> tuple[()]:
    return ()


def _default_str() -> str:
    return ""


_NDARRAY = object()  # what `_reconstruct` is called with


def _allowed() -> dict[tuple[str, str], Any]:
    """List all that RecFlow's pickles (Python 3.7, numpy 1.19) and newer copies of them need."""
    table: dict[tuple[str, str], Any] = {
        ("collections", "defaultdict"): defaultdict,
        ("numpy", "ndarray"): _NDARRAY,
        ("numpy", "dtype"): _Type,
        ("_codecs", "encode"): _encode,
        ("__builtin__", "bytes"): _no_bytes,
    }
    for module in ("utils", "__main__"):
        table[module, "defaultdict_tuple"] = _default_tuple
        table[module, "defaultdict_str"] = _default_str
    parts: dict[tuple[str, str], Callable[..., Any]] = {
        ("multiarray", "_reconstruct"): _reconstruct,
        ("multiarray", "scalar"): _scalar,
        ("numeric", "_frombuffer"): _frombuffer,
    }
    for core in ("numpy.core", "numpy._core"):
        table |= {(f"{core}.{inner}", name): part for (inner, name), part in parts.items()}
    return table


_ALLOWED = _allowed()


class _Unpickler(pickle.Unpickler):
    """Loads dictionaries of numpy arrays; a pickle can run any code, so the rest is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise RefusedPickleError(f"{module}.{name} is not allowed")
        return _ALLOWED[module, name]
