"""Lets `python -m dnr_jax.cli` stand for `dnr-jax`."""

from dnr_jax.cli import start

if __name__ == "__main__":
    start()
