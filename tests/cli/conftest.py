"""The program `dnr-jax` called in this process."""

import jax
import pytest
from program import call

__all__ = ["call"]


@pytest.fixture(scope="session")
def quick():
    """Compile with few optimisations: on tiny arrays compiling takes nearly all the time."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
