"""Settings of a log table, and of the simulated one."""

from __future__ import annotations

from dataclasses import dataclass

from dnr_jax.data.settings import DataSettings
from dnr_jax.data.table import naming
from dnr_jax.data.table.naming import Naming
from dnr_jax.settings import Settings, knob

GRADES = ("auto", "as_is", "binary", "linear", "exponential")
SCORES = ("minmax", "rank", "sigmoid", "as_is")
SPLITS_BY = ("auto", "column", "time", "request", "user")


@dataclass(frozen=True, kw_only=True)
class TableSimulation(Settings):
    """Settings of the simulated table, which they determine completely."""

    requests: int = knob(2000, "number of requests", at_least=30)
    users: int = knob(200, "number of users", at_least=1)
    catalogue: int = knob(400, "number of items", at_least=20)
    candidates: int = knob(20, "most candidates of a request", at_least=2, at_most=400)
    noise: float = knob(1.0, "spread of the first stage's errors", at_least=0)
    seed: int = knob(0, "of everything simulated", at_least=0)

    def check(self) -> None:
        """Refuse requests that the catalogue cannot fill."""
        if self.candidates > self.catalogue:
            raise ValueError(
                f"candidates is {self.candidates}: choose at most catalogue, {self.catalogue}"
            )


@dataclass(frozen=True, kw_only=True)
class TableSettings(DataSettings):
    """Settings of the reader; all but path and simulate change the prepared arrays."""

    path: str = knob("", "a file or folder of Parquet, Arrow or CSV; empty = simulate one")
    schema: str = knob("", "a TOML or YAML file of what your columns are; empty = by names")
    item_file: str = knob("", "a file that describes items, by item_id; empty = none")
    user_file: str = knob("", "a file that describes users, by user_id; empty = none")
    known: str = knob(
        "", "encoders of an earlier model, to be extended by this table; empty = none"
    )
    columns: str = knob("", "your names of columns, as request_id=session,score=bm25")
    labels: str = knob("", "several labels and their weights, as label_click:1,label_buy:5")
    hashed: str = knob(
        "",
        "features of ids without a fixed vocabulary, and the rows that each is hashed to, as "
        "i_seller=100000,c_query=1000000; min_count does not concern them",
    )
    grades: str = knob(
        "auto",
        "label -> z: as_is | binary (from positive_from on) | linear (over the greatest) | "
        "exponential (2^label - 1, over the greatest) | auto (as_is in [0, 1], else binary)",
        one_of=GRADES,
    )
    positive_from: float = knob(1.0, "grades binary only: the least positive label", above=0)
    score: str = knob(
        "minmax",
        "score -> x, in each request: minmax | rank | sigmoid | as_is (already in [0, 1])",
        one_of=SCORES,
    )
    unexposed: float = knob(
        1.0, "weight of labelled candidates that were not shown; 0 = unjudged", at_least=0
    )
    weight_cap: float = knob(10.0, "most that 1 / propensity counts", at_least=1)
    split_by: str = knob(
        "auto",
        "column | time | request or user (by hash) | auto (column, else time, else request)",
        one_of=SPLITS_BY,
    )
    valid_share: float = knob(0.1, "share of requests for validation", above=0, below=1)
    test_share: float = knob(0.1, "share of requests for the test, the latest", above=0, below=1)
    min_count: int = knob(1, "values in fewer training rows share the id unknown", at_least=1)
    bag: int = knob(8, "most values kept of a list of ids", at_least=1)
    vector_size: int = knob(
        16, "length of the item vectors that diversity is measured on", at_least=1
    )
    simulate: TableSimulation = knob(
        TableSimulation(), "size of the simulation, read only while path is empty"
    )

    def check(self) -> None:
        """Refuse shares that leave no training requests, and flags of the wrong form."""
        if self.valid_share + self.test_share >= 1:
            raise ValueError(
                f"test_share is {self.test_share}: with valid_share {self.valid_share} it leaves "
                "no request for training"
            )
        naming.read("", self.columns, self.labels, self.hashed)

    @property
    def naming(self) -> Naming:
        """What the schema file and the flags say about columns."""
        return naming.read(self.schema, self.columns, self.labels, self.hashed)
