"""Trained models at work: raw requests in, an order out."""

from __future__ import annotations

from dnr_jax.serving.model import Model, load

__all__ = ["Model", "load"]
