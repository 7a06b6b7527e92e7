"""What a user may choose about RecFlow's reranking task."""

from __future__ import annotations

from dataclasses import dataclass

from dnr_jax.data.recflow import files, scores

GRADED = "graded"
MAX_HISTORY = 50  # the files hold no more


@dataclass(frozen=True, kw_only=True)
class Options:
    """Knobs of the loader; every one changes the prepared arrays.

    Attributes:
      size: candidates of a request N.
      slate: shown list K <= N; more shown rows stay exposed candidates beyond the slate.
      history: events kept T, 1 to 50.
      score: a key of `scores.FORMULAS`.
      tau: decay of score "exp", in ranks.
      jitter: rows without a valid rank draw one from their stage's range, so that they do not tie.
      pool: "strict" = rows that truly entered the rerank stage; "fill" = then rank, coarse and
        pre-ranking losers up to N.
      unexposed: how unexposed candidates count: "zero" = as negatives, "mask" = not at all,
        "weight:0.3" = as negatives of that weight.
      label: a feedback column; several with weights ("effective_view:1,like:0.5", the weighted
        mean); or "graded" = 0.6 effective view, 0.8 long view, 1 with any interaction. A label
        counts as positive above 0.5.
      period: "all", or "first" for the first collection period.
      days: keep only so many of the last days (>= 3); 0 keeps all.
      user_share: share of users kept, 1/n: those with `user_id % n == 0`.
      min_count: videos and authors in fewer candidate rows of train days become "unknown".
      hash_buckets: videos and authors are hashed into so many buckets instead; 0 = dictionary.
      vector_size: length of the item vectors.
      seed: for sampling, jitter, candidate order and item vectors.
      progress: show a progress bar.

    Raises:
      ValueError: a value outside of what is said above; the text names what is allowed.
    """

    size: int
    slate: int
    history: int
    score: str
    tau: float
    jitter: bool
    pool: str
    unexposed: str
    label: str
    period: str
    days: int
    user_share: float
    min_count: int
    hash_buckets: int
    vector_size: int
    seed: int
    progress: bool

    def __post_init__(self) -> None:
        _one_of("score", self.score, tuple(scores.FORMULAS))
        _one_of("pool", self.pool, ("strict", "fill"))
        _one_of("period", self.period, ("all", "first"))
        _between("slate", self.slate, 1, self.size)
        _between("history", self.history, 1, MAX_HISTORY)
        _between("user_share", self.user_share, 1e-6, 1.0)
        _between("min_count", self.min_count, 1, float("inf"))
        _between("hash_buckets", self.hash_buckets, 0, 2**31 - 3)
        _between("vector_size", self.vector_size, 1, float("inf"))
        _between("seed", self.seed, 0, 2**31 - 1)
        _between("tau", self.tau, 1e-6, float("inf"))
        if self.days != 0:
            _between("days", self.days, 3, float("inf"))
        label_weights(self.label)
        unexposed_weight(self.unexposed)

    @property
    def flags(self) -> tuple[str, ...]:
        """Stage flags that make a row a candidate, in the order in which they are taken."""
        return files.STRICT_FLAGS if self.pool == "strict" else files.FLAGS


def label_weights(label: str) -> dict[str, float]:
    """Read a label option into a weight per feedback column; empty for "graded".

    Raises:
      ValueError: an unknown column, a weight that is no number >= 0, or weights that are all 0.
    """
    if label == GRADED:
        return {}
    weights: dict[str, float] = {}
    for part in label.split(","):
        name, _, text = part.strip().partition(":")
        _one_of("label", name, (*files.FEEDBACK, GRADED))
        weights[name] = _number("label", text or "1")
    if not sum(weights.values()) > 0:
        raise ValueError(f"label={label!r}: the weights must not all be 0")
    return weights


def unexposed_weight(policy: str) -> float:
    """Read an exposure policy into the weight of an unexposed candidate.

    Raises:
      ValueError: the policy is none of "zero", "mask", "weight:NUMBER".
    """
    name, _, text = policy.partition(":")
    _one_of("unexposed", name, ("zero", "mask", "weight"))
    return {"zero": 1.0, "mask": 0.0}[name] if name != "weight" else _number("unexposed", text)


def _number(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise ValueError(f"{option}: {text!r} is not a number; write e.g. 0.3") from error
    _between(option, value, 0.0, 1e6)
    return value


def _one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{option}={value!r} is not one of {known}")


def _between(option: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{option}={value} is outside of {low} to {high}")
