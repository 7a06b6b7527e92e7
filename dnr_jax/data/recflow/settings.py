"""Settings of RecFlow's reranking task, and of its simulation."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dnr_jax.data.recflow import files, scores
from dnr_jax.data.settings import DataSettings
from dnr_jax.settings import Settings, find, knob

GRADED = "graded"
MAX_HISTORY = 50  # the files hold no more
MIN_DAYS = 3  # train, valid and test need one each
MIN_VIDEOS = scores.RANKED + 100  # the stages before ranking need something to drop
UNEXPOSED = {"zero": 1.0, "mask": 0.0}


@dataclass(frozen=True, kw_only=True)
class RecFlowSimulation(Settings):
    """Settings of the simulated files; all of them are a function of these."""

    users: int = knob(400, "number of users", at_least=1)
    videos: int = knob(
        12000,
        "number of videos; a request needs 600 that its user was not shown before",
        at_least=MIN_VIDEOS,
    )
    days: int = knob(7, "number of days, the last one 2024-02-18", at_least=MIN_DAYS, at_most=37)
    requests_per_user_day: float = knob(1.6, "mean of a Poisson law", above=0)
    view_rate: float = knob(0.37, "mean effective view of shown rows", above=0, below=1)
    rank_losers: int = knob(
        10, "recorded videos a request that the ranking dropped, of 380", at_least=1, at_most=380
    )
    noise: float = knob(
        2.0,  # the middle of the sweep 0.5 to 8 in docs/results/noise.md
        "of what the stages see, as a multiple of the stages' own; 0 = they see what is liked",
        at_least=0,
        at_most=99,
    )
    seed: int = knob(0, "of everything simulated", at_least=0)


@dataclass(frozen=True, kw_only=True)
class RecFlowSettings(DataSettings):
    """Settings of the loader; every one but path and simulate changes the prepared arrays."""

    history: int = knob(50, "T, last effective views of the user", at_least=1, at_most=MAX_HISTORY)
    score: str = knob(
        "log_rank", f"rank_index -> x: {' | '.join(scores.FORMULAS)}", one_of=scores.FORMULAS
    )
    tau: float = knob(50.0, "score exp only: its decay in ranks", at_least=1e-6)
    jitter: bool = knob(True, "rows without a rank draw one in their stage's range, or they tie")
    pool: str = knob(
        "fill",
        "strict (rows that entered the rerank stage) | fill (then losers of the stages before)",
        one_of=("fill", "strict"),
    )
    unexposed: str = knob(
        "zero", "how unexposed candidates count: zero (negatives) | mask (unjudged) | weight:0.3"
    )
    label: str = knob(
        "effective_view",
        "a column, a weighted mean as effective_view:1,like:0.5, or graded; positive above 0.5",
    )
    period: str = knob("all", "all | first (the first collection period)", one_of=("all", "first"))
    days: int = knob(0, "keep only so many of the last days, 3 or more; 0 = all", at_least=0)
    user_share: float = knob(
        1.0, "share of users kept, 1/n: those with user_id % n == 0", at_least=1e-6, at_most=1
    )
    min_count: int = knob(5, "rarer videos and authors share the id unknown", at_least=1)
    hash_buckets: int = knob(
        0,
        "> 0: hash videos and authors into so many instead of a dictionary",
        at_least=0,
        at_most=2**31 - 3,
    )
    vector_size: int = knob(
        16, "length of the category vectors that diversity is measured on", at_least=1
    )
    simulate: RecFlowSimulation = knob(
        RecFlowSimulation(), "size of the simulation, read only while path is empty"
    )

    def check(self) -> None:
        """Refuse impossible days and shares, and unknown labels and policies."""
        if 0 < self.days < MIN_DAYS:
            raise ValueError(f"days is {self.days}: it must be 0 (all) or {MIN_DAYS} or more")
        if not math.isclose(self.user_share * self.one_user_in, 1, rel_tol=0.02):
            raise ValueError(
                f"user_share is {self.user_share}: it must be 1/n, the nearest is "
                f"{1 / self.one_user_in:.4g}"
            )
        label_weights(self.label)
        unexposed_weight(self.unexposed)

    @property
    def one_user_in(self) -> int:
        """The n such that one user in n is kept."""
        return round(1 / self.user_share)

    @property
    def flags(self) -> tuple[str, ...]:
        """Stage flags that make a row a candidate, in the order in which they are taken."""
        return files.STRICT_FLAGS if self.pool == "strict" else files.FLAGS


def label_weights(label: str) -> dict[str, float]:
    """Read a label into a weight per feedback column; empty for "graded".

    "graded" is 0.6 for an effective view, 0.8 for a long view, 1 with any interaction.

    Raises:
      ValueError: an unknown column, a weight that is no number >= 0, or weights that are all 0.
    """
    if label == GRADED:
        return {}
    weights: dict[str, float] = {}
    for part in label.split(","):
        name, _, text = part.strip().partition(":")
        _known("label", label, name, (*files.FEEDBACK, GRADED))
        weights[name] = _number("label", label, text or "1")
    if not sum(weights.values()) > 0:
        raise ValueError(f"label is {label!r}: the weights must not all be 0")
    return weights


def unexposed_weight(policy: str) -> float:
    """Read an exposure policy into the weight of an unexposed candidate.

    Raises:
      ValueError: the policy is none of "zero", "mask", "weight:NUMBER".
    """
    name, colon, text = policy.partition(":")
    _known("unexposed", policy, name, (*UNEXPOSED, "weight"))
    if name == "weight":
        return _number("unexposed", policy, text)
    if colon:
        raise ValueError(f"unexposed is {policy!r}: only weight is followed by a number")
    return UNEXPOSED[name]


def _number(knob_name: str, given: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise ValueError(
            f"{knob_name} is {given!r}: {text!r} is not a number; write e.g. 0.3"
        ) from error
    if not 0 <= value <= 1e6:
        raise ValueError(f"{knob_name} is {given!r}: weights must be 0 or more and at most 1e6")
    return value


def _known(knob_name: str, given: str, name: str, known: tuple[str, ...]) -> None:
    try:
        find("choice", name, dict.fromkeys(known))
    except ValueError as error:
        raise ValueError(f"{knob_name} is {given!r}: {error}") from None
