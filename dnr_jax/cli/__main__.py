"""Makes `python -m dnr_jax.cli` the same as `dnr-jax`."""

from dnr_jax.cli import start

if __name__ == "__main__":
    start()
