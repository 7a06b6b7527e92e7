"""Settings of the run itself: seed, cache, devices, optimisers, precision and evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from dnr_jax.nn.precision import DTYPES
from dnr_jax.settings import Settings, knob
from dnr_jax.training.optimizers import OptimizerSettings

_ADAM = OptimizerSettings()


@dataclass(frozen=True, kw_only=True)
class RunSettings(Settings):
    """The knobs at the top level of a config."""

    seed: int = knob(
        0, "of everything random: data, candidate order, retriever, first train seed", at_least=0
    )
    cache: str = knob(
        "~/.cache/dnr_jax", "folder of prepared arrays, simulated files and compiled programs"
    )
    start: str = knob(
        "", "a model folder that trained rows go on from; empty = they begin with fresh draws"
    )


@dataclass(frozen=True, kw_only=True)
class OptimSettings(Settings):
    """Each player's optimiser."""

    reranker: OptimizerSettings = knob(_ADAM, "of the reranker")
    generator: OptimizerSettings = knob(_ADAM, "of the noise generator")


@dataclass(frozen=True, kw_only=True)
class DeviceSettings(Settings):
    """Which devices a run uses, and how."""

    count: int = knob(0, "every batch is split over so many; 0 = all there are", at_least=0)
    shard_tables: bool = knob(False, "embedding tables lie by rows over the devices")


@dataclass(frozen=True, kw_only=True)
class ComputeSettings(Settings):
    """The precision of the reranker in training and scoring.

    Parameters, scores, softmaxes, logits, losses and metrics are float32 in any case.
    """

    dtype: str = knob("float32", "of the reranker's activations", one_of=DTYPES)


@dataclass(frozen=True, kw_only=True)
class EvalSettings(Settings):
    """How models are scored and judged."""

    k: int = knob(6, "K, the length of the shown list", at_least=1)
    batch_size: int = knob(
        512, "requests scored at once; on a CPU 64 of them, which is faster", at_least=1
    )
