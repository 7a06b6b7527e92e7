"""Settings of MovieLens, and of its simulation."""

from __future__ import annotations

from dataclasses import dataclass

from dnr_jax.data.settings import DataSettings
from dnr_jax.settings import Settings, knob

STARS = (0.5, 5.0)
FEWEST_MOVIES = 40  # every simulated user rates 20 or more, and at most half of all


@dataclass(frozen=True, kw_only=True)
class MovieLensSimulation(Settings):
    """Settings of the simulated files; all of them are a function of these."""

    users: int = knob(400, "number of users", at_least=1)
    movies: int = knob(600, "number of movies", at_least=FEWEST_MOVIES)
    seed: int = knob(0, "of everything simulated", at_least=0)


@dataclass(frozen=True, kw_only=True)
class MovieLensSettings(DataSettings):
    """Settings of the reader; every one but path and simulate changes the prepared arrays."""

    positive_rating: float = knob(
        3.0, "ratings from here on are positive feedback", at_least=STARS[0], at_most=STARS[1]
    )
    core: int = knob(20, "keep users and items with at least so many ratings", at_least=0)
    tie_seed: int = knob(
        0,
        "> 0: ratings of one time stamp are ordered by a draw of this seed, not as in the file",
        at_least=0,
    )
    simulate: MovieLensSimulation = knob(
        MovieLensSimulation(), "size of the simulation, read only while path is empty"
    )
