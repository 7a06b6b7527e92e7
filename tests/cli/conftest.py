"""The program `dnr-jax` called in this process."""

from program import call

__all__ = ["call"]
