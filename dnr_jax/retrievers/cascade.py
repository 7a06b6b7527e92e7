"""Cascade: a cheap stage rejects items, a costly one scores the rest, and the loss includes costs.

After Wang et al., cascade ranking (SIGIR 2011, doi 10.1145/2009916.2009934), and Gallagher et al.,
joint optimisation of cascades (WSDM 2019, doi 10.1145/3289600.3290986): all stages are trained
together, each on the features that it can afford, for quality minus the cost of computation. Here
an item passes the first stage with probability g = sigma(s1) and is liked with probability
g sigma(s2), so

  L = cross-entropy of g sigma(s2) + cost * mean of g over the pool,

where the mean of g is the expected share of items for which the second stage runs. The first stage
reads only ids, the second also history and features.

This is cascade-style: the papers rank web pages by boosted trees and by linear models with hard or
softened cut-offs, and prune features by cost. The soft gate with the product of probabilities is
ours, as are the two kinds of features.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from dnr_jax.retrievers.joint import JointSettings, Outcome, joint, mean
from dnr_jax.retrievers.retriever import Retriever
from dnr_jax.settings import knob
from dnr_jax.types import Array

# Keeps log(1 - p) finite where p rounds to 1.
LARGEST_LOG = -1e-6


@dataclass(frozen=True, kw_only=True)
class CascadeSettings(JointSettings):
    """Settings of the cascade; it uses neither `passed` nor `warm_up`."""

    cost: float = knob(0.1, "price of the second stage for one item", at_least=0, at_most=1e3)


def cascade(settings: CascadeSettings) -> Retriever:
    """Make the retriever (Wang et al. 2011; Gallagher et al. 2019); see the module."""
    return joint(settings, loss)


def loss(settings: CascadeSettings, s1: Array, s2: Array, outcome: Outcome) -> Array:
    """Return the cross-entropy of both stages' product, and the expected cost: `[B]`."""
    log_p = jnp.minimum(jax.nn.log_sigmoid(s1) + jax.nn.log_sigmoid(s2), LARGEST_LOG)
    log_not_p = jnp.log(-jnp.expm1(log_p))
    quality = -outcome.label * log_p - (1 - outcome.label) * log_not_p
    each = quality + settings.cost * jax.nn.sigmoid(s1)
    return mean(each, outcome.where)
