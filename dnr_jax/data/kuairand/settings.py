"""Settings of KuaiRand, and of the simulated files."""

from __future__ import annotations

from dataclasses import dataclass

from dnr_jax.data.settings import DataSettings
from dnr_jax.settings import Settings, knob

LABELS = ("is_click", "is_like", "is_follow", "is_comment", "is_forward", "long_view")


@dataclass(frozen=True, kw_only=True)
class KuaiRandSimulation(Settings):
    """Settings of the simulated files; all of them are a function of these."""

    users: int = knob(300, "number of users", at_least=1)
    videos: int = knob(400, "number of videos", at_least=100)
    random: int = knob(20, "videos that each user is shown at random", at_least=1, at_most=90)
    seed: int = knob(0, "of everything simulated", at_least=0)


@dataclass(frozen=True, kw_only=True)
class KuaiRandSettings(DataSettings):
    """Settings of the reader; every one but path and simulate changes the prepared arrays."""

    label: str = knob("is_click", "what counts as positive", one_of=LABELS)
    random_log: bool = knob(
        False,
        "read the random log too, for the protocol random_exposure; what the standard logs "
        "hold from its first moment on is left out",
    )
    core: int = knob(20, "keep users and videos with at least so many interactions", at_least=0)
    simulate: KuaiRandSimulation = knob(
        KuaiRandSimulation(), "size of the simulation, read only while path is empty"
    )
