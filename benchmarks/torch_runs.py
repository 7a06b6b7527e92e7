"""Training and scoring with `torch_reference`, as calls that can be timed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks import standard_case, torch_reference
from benchmarks.standard_case import Work
from benchmarks.torch_reference import Network, Player, to_torch
from dnr_jax.types import Batch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cuda":  # as XLA multiplies float32 on a GPU unless told otherwise
    torch.set_float32_matmul_precision("high")


def training(
    work: Work, batch: Batch, dtype: str, *, steps: int, mode: str | None, **sizes: Any
) -> Callable[[], None]:
    """Make a call of `steps` train steps; `mode` is that of torch.compile, None = eager."""
    columns = torch_reference.columns(batch, DEVICE)
    players = _players(work, batch, **sizes)
    theta, phi = players["reranker"], players.get("generator")
    plain, denoise, play = _losses(work, mode, **sizes)

    def step() -> None:
        if work.phase == 0:
            theta.update(plain, theta.params, columns)
            return
        if phi is None:
            noisy = torch_reference.heuristic(columns, torch_reference.draw(columns))
        else:
            phi.update(play, theta.params, phi.params, columns, torch_reference.draw(columns))
            with torch.no_grad():
                noisy = torch_reference.generate(phi.params, columns, torch_reference.draw(columns))
        theta.update(denoise, theta.params, columns, noisy)

    def call() -> None:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == "bfloat16"):
            for _ in range(steps):
                step()
        _wait()

    return call


def scoring(batch: Batch, dtype: str, *, mode: str | None, **sizes: Any) -> Callable[[], None]:
    """Make a call that scores a batch by plain PRM, late entry; `mode` as for `training`."""
    work = standard_case.WORKS[0]
    network = Network(standard_case.knobs_of(work, **sizes), rate=0.0)
    params = _players(work, batch, **sizes)["reranker"].params
    columns = torch_reference.columns(batch, DEVICE)

    def score() -> Any:
        return network.decode(params, network.encode(params, columns), columns["scores"], columns)

    run = torch.compile(score, mode=mode) if mode else score

    def call() -> None:
        with (
            torch.inference_mode(),
            torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == "bfloat16"),
        ):
            run()
        _wait()

    return call


def _players(work: Work, batch: Batch, **sizes: Any) -> dict[str, Player]:
    """Start from the parameters that our own training starts from."""
    state = standard_case.fresh(standard_case.make_game(work, "float32", **sizes), batch)
    adam = standard_case.ADAM
    return {
        name: Player(to_torch(tree, DEVICE, learned=True), adam.learning_rate, adam.weight_decay)
        for name, tree in state.params.items()
        if tree
    }


def _losses(work: Work, mode: str | None, **sizes: Any) -> list[Callable[..., torch.Tensor]]:
    """List the losses of plain PRM, of the reranker and of the generator, compiled if asked."""
    knobs = standard_case.knobs_of(work, **sizes)
    network, judge = Network(knobs, rate=knobs["dropout"]), Network(knobs, rate=0.0)
    losses = [
        partial(torch_reference.plain_loss, network),
        partial(torch_reference.reranker_loss, network),
        partial(torch_reference.generator_loss, judge),
    ]
    return [torch.compile(loss, mode=mode) for loss in losses] if mode else losses


def _wait() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()
