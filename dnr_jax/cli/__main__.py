"""Lets `python -m dnr_jax.cli` stand for `dnr-jax`."""

from dnr_jax.cli import main

main()
