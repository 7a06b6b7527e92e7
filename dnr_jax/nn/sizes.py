"""Checks of the sizes that a model is built with."""

from __future__ import annotations


def check_heads(width: int, heads: int) -> None:
    """Raise `ValueError` unless attention heads can share the width evenly."""
    if width < 1 or heads < 1 or width % heads:
        raise ValueError(f"width {width} is not a multiple of heads {heads}: change one of them")


def check_positive(**sizes: int) -> None:
    """Raise `ValueError`, naming all `sizes`, if one of them is below 1."""
    if min(sizes.values()) < 1:
        seen = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"{seen} must be at least 1")
