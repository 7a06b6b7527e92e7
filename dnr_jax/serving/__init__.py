"""Trained models at work: raw requests in, an order out."""

from __future__ import annotations

from dnr_jax.serving.batches import Scorer
from dnr_jax.serving.model import Model, load
from dnr_jax.serving.packing import check_out, pack

__all__ = ["Model", "Scorer", "check_out", "load", "pack"]
