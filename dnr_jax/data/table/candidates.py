"""Candidates to be scored: a table without labels, with columns read as a model needs them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dnr_jax.data.encoders import Encoders
from dnr_jax.data.table import checks, coding, columns, examination, pieces
from dnr_jax.data.table.columns import Typed
from dnr_jax.data.table.naming import Naming
from dnr_jax.data.table.reader import Source, open_table
from dnr_jax.data.table.schema import (
    PREFIXES,
    REQUIRED,
    ROLES,
    TASK,
    Feature,
    customary,
    features_of,
    plain,
    understand,
)
from dnr_jax.data.table.settings import TableSettings

SCORES = ("score", "rank")  # from the first stage, or from a model
READ = (*REQUIRED, *SCORES, "user_id", "timestamp", "history", "history_time")
LISTS = ("history", "history_time")  # repeated in each row of a request
RANKED = (*REQUIRED, *SCORES, "retriever_score")  # columns of candidates once ranked
_OPTIONAL = ("user_id", "history")
_TIMES = ("timestamp", "history_time")


class Candidates(NamedTuple):
    """A table of candidates whose column names and types were checked.

    Attributes:
      table: the typed table.
      missing: optional columns that the model reads and the table lacks.
      scored: whether there are first-stage scores.
      passed: columns that are copied to the ranked table, beside `RANKED`: user, time, label,
        position, exposure, weight, propensity and split.
    """

    table: Typed
    missing: tuple[str, ...]
    scored: bool
    passed: tuple[str, ...]

    @property
    def place(self) -> str:
        """The table's name in messages."""
        return self.table.source.place

    def parts(self, spans: Sequence[tuple[int, int]]) -> Iterator[Candidates]:
        """Read some rows at a time into memory, without `FILE`.

        Args:
          spans: first row and number of rows, ascending, of whole requests.

        Raises:
          ValueError: the files cannot be read.
        """
        source, schema = self.table.source, self.table.schema
        lists = [schema.columns[role] for role in LISTS if role in schema.columns]
        request = schema.columns["request_id"]
        names = [*dict.fromkeys((*schema.used, *self.passed))]
        for held in pieces.read(source, names, spans, request, lists):
            own = Source(held.lazy(), source.types, source.files)
            yield self._replace(table=columns.typed(own, schema, self.table.time_unit))

    def check_values(self, encoders: Encoders) -> int:
        """Check every value once and return the number of rows.

        Raises:
          ValueError: the table is empty, or a value is invalid; see `checks.check_values`.
        """
        as_is = encoders.transforms["score"] == "as_is"
        return checks.check_values(self.table, score_as_is=as_is)


def read(given: Any, encoders: Encoders, settings: TableSettings) -> Candidates:
    """Open a table of candidates and identify its columns.

    Args:
      given: a path, or a frame of polars, pandas or pyarrow.
      encoders: those of the model.
      settings: names of columns and side tables; the other knobs do not matter here.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a required column is absent, or a column has the wrong type.
      TypeError: a frame of an unknown kind.
    """
    bare = open_table(given)
    source = examination.described(bare, settings)
    features = {feature.name: feature for feature in features_of(encoders)}
    naming = _naming(settings.naming, features, source)
    types = {name: k for name, k in source.types.items() if _readable(name, naming, features)}
    schema = understand(types, naming, source.place)
    schema = schema._replace(
        columns={role: name for role, name in schema.columns.items() if role in READ}, labels={}
    )
    checks.check_types(source, schema)
    present = {*schema.columns, *(feature.name for feature in schema.features)}
    missing = tuple(name for name in (*_OPTIONAL, *features) if name not in present)
    if not len(encoders.vocabularies["user_id"].keys):  # there were no users in training
        missing = tuple(name for name in missing if name != "user_id")
    table = columns.typed(source, schema, examination.time_unit(source, schema))
    passed = _passed(bare.types, settings.naming, schema.columns)
    return Candidates(table, missing, coding.has_score(schema.columns), passed)


def _naming(given: Naming, features: Mapping[str, Feature], source: Source) -> Naming:
    """Keep the user's settings that apply here; features are read as in training.

    The training schema may name labels and times, which candidates need not have.
    """
    named = {
        role: name
        for role, name in given.columns.items()
        if role in READ and (role not in _TIMES or name in source.types)
    }
    words = {name: (f.side, f.kind) for name, f in features.items() if name in source.types}
    return Naming(named, {}, words, ())


def _passed(names: Iterable[str], given: Naming, read: Mapping[str, str]) -> tuple[str, ...]:
    """List the columns of `Candidates.passed`, found by name or named by the user."""
    roles = [role for role in ROLES if role not in (*REQUIRED, *SCORES, *LISTS)]
    others = {*RANKED, *(name for role, name in read.items() if role not in roles)}
    own = {name for role, name in given.columns.items() if role in roles} | {*given.labels}
    usual = customary(*roles)
    return tuple(
        name
        for name in names
        if name not in others and (name in own or plain(name) in usual or name.startswith(TASK))
    )


def _readable(name: str, naming: Naming, features: Mapping[str, Feature]) -> bool:
    """Tell whether a column is read; labels and features unknown to the model are not."""
    if name in features or name in naming.columns.values():
        return True
    others = customary(*(role for role in ROLES if role not in READ))
    return name[:2] not in PREFIXES and plain(name) not in others
