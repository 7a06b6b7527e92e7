"""Use trained models: raw requests in, a ranking out."""

from __future__ import annotations

from dnr_jax.serving.batches import Scorer
from dnr_jax.serving.lists import rank_split
from dnr_jax.serving.model import Model, load
from dnr_jax.serving.packing import check_out, pack
from dnr_jax.serving.streams import whole_requests

__all__ = ["Model", "Scorer", "check_out", "load", "pack", "rank_split", "whole_requests"]
