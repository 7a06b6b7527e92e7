"""Adds to pyproject.toml what it cannot say: `configs/` is installed as `dnr_jax/configs/`."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["dnr_jax*"]), "dnr_jax.configs"],
    package_dir={"dnr_jax.configs": "configs"},
)
