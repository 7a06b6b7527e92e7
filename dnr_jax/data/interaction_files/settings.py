"""Settings of interaction files, and of the simulated ones."""

from __future__ import annotations

from dataclasses import dataclass

from dnr_jax.data.interaction_files.layouts import LAYOUTS, PUBLISHED, ROLES
from dnr_jax.data.settings import DataSettings
from dnr_jax.settings import Settings, find, knob

LAYOUT_NAMES = ("auto", *LAYOUTS)


@dataclass(frozen=True, kw_only=True)
class InteractionSimulation(Settings):
    """Settings of the simulated files; all of them are a function of these."""

    layout: str = knob("movielens_csv", "whose schema the files have", one_of=tuple(LAYOUTS))
    users: int = knob(400, "number of users", at_least=1)
    catalogue: int = knob(600, "number of items", at_least=60)
    seed: int = knob(0, "of everything simulated", at_least=0)


@dataclass(frozen=True, kw_only=True)
class InteractionSettings(DataSettings):
    """Settings of the reader; every one but path and simulate changes the prepared arrays."""

    path: str = knob("", "a file or a folder that holds one data set; empty = simulate one")
    layout: str = knob(
        "auto", "which published form the file must have; auto = see by itself", one_of=LAYOUT_NAMES
    )
    columns: str = knob("", "layout columns: your names, as user=member,item=sku,time=bought_at")
    item_file: str = knob("", "a CSV or Parquet file that describes items; empty = the layout's")
    user_file: str = knob("", "a CSV or Parquet file that describes users; empty = none")
    item_columns: str = knob("", "of item_file: the id and the features, as id=sku,brand=maker")
    user_columns: str = knob("", "of user_file: the same, as id=member,city=city")
    positive_rating: float = knob(3.0, "ratings from here on are positive; without any, all are")
    core: int = knob(20, "keep users and items with at least so many interactions", at_least=0)
    repeats: str = knob(
        "first", "which of a user's meetings with one item stays", one_of=("first", "last")
    )
    tie_seed: int = knob(
        0,
        "> 0: rows of one time stamp are ordered by a draw of this seed, not as in the file",
        at_least=0,
    )
    published: str = knob("", "compare the counts with those of a paper", one_of=("", *PUBLISHED))
    simulate: InteractionSimulation = knob(
        InteractionSimulation(), "size of the simulation, read only while path is empty"
    )

    def check(self) -> None:
        """Refuse malformed mappings, and unknown roles."""
        for name in mapping("columns", self.columns):
            find("role of columns", name, dict.fromkeys(ROLES))
        for side in ("item", "user"):
            _check_side(side, getattr(self, f"{side}_file"), getattr(self, f"{side}_columns"))


def _check_side(side: str, file: str, columns: str) -> None:
    named = mapping(f"{side}_columns", columns)
    if bool(file) != bool(named):
        raise ValueError(
            f"{side}_file and {side}_columns go together: say which file and, as "
            "id=COLUMN,FEATURE=COLUMN, which of its columns"
        )
    if named and ("id" not in named or len(named) < 2):
        raise ValueError(
            f"{side}_columns is {columns!r}: it needs id=COLUMN and a feature, as "
            "id=sku,brand=maker"
        )


def mapping(knob_name: str, text: str) -> dict[str, str]:
    """Read `name=column` pairs between commas.

    Raises:
      ValueError: a malformed part, or a repeated name.
    """
    pairs = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    names = [name for name, _, _ in pairs]
    if any(not (name and sign and column) for name, sign, column in pairs) or len(set(names)) < len(
        names
    ):
        raise ValueError(
            f"{knob_name} is {text!r}: write name=column pairs, as user=member,item=sku"
        )
    return {name: column for name, _, column in pairs}
