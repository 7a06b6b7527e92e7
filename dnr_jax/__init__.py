"""Denoising neural reranking in JAX (Denoising Neural Reranker, arXiv 2509.18736).

The public face: what a script or a notebook needs, each loaded when it is first used.

    config = dnr_jax.config("recflow:smoke")
    [folder] = dnr_jax.run(config, "runs/first")
    print(dnr_jax.report(folder))
    model = dnr_jax.load(folder, row="dnr_b")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnr_jax.config_files import load as config
    from dnr_jax.evaluation import evaluate
    from dnr_jax.experiment import copy_run, merge_runs, run_data
    from dnr_jax.experiment import run_all as run
    from dnr_jax.metrics import METRICS, evaluate_batch
    from dnr_jax.noise import GENERATORS, NOISES
    from dnr_jax.reports import compare_requests, side_by_side
    from dnr_jax.reports import write as report
    from dnr_jax.rerankers import RERANKERS, build
    from dnr_jax.serving import Model, Scorer, load, pack, rank_split
    from dnr_jax.types import Batch, FeatureSpec, Noise, Request, Reranker, Task, apply, rank

__version__ = "0.1.0"

# Public name -> the module that defines it, and its name there.
_HOMES = {
    **dict.fromkeys(("Batch", "FeatureSpec", "Noise", "Request", "Reranker", "Task"), "types"),
    **dict.fromkeys(("apply", "rank"), "types"),
    **dict.fromkeys(("RERANKERS", "build"), "rerankers"),
    **dict.fromkeys(("GENERATORS", "NOISES"), "noise"),
    **dict.fromkeys(("METRICS", "evaluate_batch"), "metrics"),
    "evaluate": "evaluation",
    "config": "config_files:load",
    "run": "experiment:run_all",
    **dict.fromkeys(("copy_run", "merge_runs", "run_data"), "experiment"),
    "report": "reports:write",
    **dict.fromkeys(("compare_requests", "side_by_side"), "reports"),
    **dict.fromkeys(("Model", "Scorer", "load", "pack", "rank_split"), "serving"),
}

__all__ = [  # the same names, as the type checker wants to see them
    "GENERATORS",
    "METRICS",
    "NOISES",
    "RERANKERS",
    "Batch",
    "FeatureSpec",
    "Model",
    "Noise",
    "Request",
    "Reranker",
    "Scorer",
    "Task",
    "apply",
    "build",
    "compare_requests",
    "config",
    "copy_run",
    "evaluate",
    "evaluate_batch",
    "load",
    "merge_runs",
    "pack",
    "rank",
    "rank_split",
    "report",
    "run",
    "run_data",
    "side_by_side",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `--help` and a mistyped flag need no JAX."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dnr_jax' has no attribute {name!r}")
    module, _, inner = _HOMES[name].partition(":")
    value = getattr(import_module(f"dnr_jax.{module}"), inner or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
