"""The two kinds of data sets, and what each must provide to be prepared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from dnr_jax.data import requests
from dnr_jax.data.candidates import Truth
from dnr_jax.data.encoders import Encoded, Encoders
from dnr_jax.data.interactions import Interactions
from dnr_jax.data.protocols import CANDIDATES
from dnr_jax.data.settings import DataSettings, Shape
from dnr_jax.data.store import Writer


class Build(Protocol):
    """Reads the files of a logged data set at `path` into a writer, and finishes it."""

    def __call__(
        self,
        writer: Writer,
        path: Path,
        settings: Any,
        shape: Shape,
        /,
        *,
        seed: int,
        progress: bool,
    ) -> None: ...


class EncodeRaw(Protocol):
    """Turns raw requests, Python objects in the data set's own format, into arrays.

    Raises:
      ValueError: a request is not in that format, or has more than `size` items (None = as
        prepared).
    """

    def __call__(
        self, encoders: Encoders, requests: Sequence[Mapping[str, Any]], *, size: int | None = None
    ) -> Encoded: ...


class InteractionData(NamedTuple):
    """A data set of user-item interactions; a retriever and a protocol make the candidates.

    Attributes:
      settings: class of its settings.
      inputs: `(path, settings)` -> the files that `read` and `truth` open.
      read: `(path, settings)` -> interactions, without users and items that have too few.
      truth: `(path, settings)` -> true relevance; None where it is not known.
      simulate: `(folder, settings.simulate)` writes the files of a simulated data set.
      encode: turns raw requests into arrays, with the encoders of the prepared data.
      protocols: the candidate protocols under which it can be prepared.
    """

    settings: type[DataSettings]
    inputs: Callable[[Path, Any], list[Path]]
    read: Callable[[Path, Any], Interactions]
    truth: Callable[[Path, Any], Truth | None]
    simulate: Callable[[Path, Any], None]
    encode: EncodeRaw = requests.encode
    protocols: tuple[str, ...] = tuple(CANDIDATES)

    @property
    def direct(self) -> bool:
        """Whether models can be exported, be served and score tables; see `LoggedData`."""
        return self.encode is requests.encode

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the modules that read the files."""
        return (self.inputs.__module__, self.read.__module__, self.truth.__module__)


class LoggedData(NamedTuple):
    """A data set whose logs hold the candidates and their first-stage ranks or scores.

    Attributes:
      settings: class of its settings.
      inputs: `(path, settings)` -> the files that `build` opens.
      check: `(path, settings)` raises `ValueError` for files that `build` could not use; cheap.
      build: makes the arrays.
      simulate: `(folder, settings.simulate)` writes the files of a simulated data set.
      encode: turns raw requests into arrays, with the encoders of the prepared data.
      protocols: the candidate protocols under which it can be prepared.
      direct: whether raw requests have a format that `data.direct` reads, so models can be
        exported, be served and score tables; otherwise requests come one by one, for `encode`.
      estimate: `(path, settings)` -> time and memory of reading, in words; None = not known.
    """

    settings: type[DataSettings]
    inputs: Callable[[Path, Any], list[Path]]
    check: Callable[[Path, Any], None]
    build: Build
    simulate: Callable[[Path, Any], None]
    encode: EncodeRaw
    protocols: tuple[str, ...] = ("logged",)
    direct: bool = False
    estimate: Callable[[Path, Any], list[str]] | None = None

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the modules that read the files."""
        return (self.inputs.__module__, self.build.__module__)
