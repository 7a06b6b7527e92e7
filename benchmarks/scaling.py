"""How cost grows: with devices, requests, the catalogue, and data that stays on the host.

  python -m benchmarks.scaling requests                     seconds an epoch
  python -m benchmarks.scaling catalogue                    seconds a step
  python -m benchmarks.scaling stream                       host against device, requests a second
  python -m benchmarks.scaling devices --cpu-devices 8      the same numbers on each?
  python -m benchmarks.scaling memory --cpu-devices 8       bytes a device, compiled but not run

`--cpu-devices` splits the CPU into fake devices: they show placement, communication and equal
numbers, but nothing about speed, as they share its cores. Leave it out if there are real ones.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness, standard_case
from dnr_jax import rerankers
from dnr_jax.data import loader
from dnr_jax.nn.tables import UPDATES
from dnr_jax.objectives import ObjectiveSettings
from dnr_jax.training import sharding
from dnr_jax.training.epoch import (
    Epoch,
    alternate,
    make_epoch,
    rows_of_epoch,
    seed_axis,
    stack_states,
)
from dnr_jax.training.optimizers import RERANKER, OptimizerSettings, two_player_optimizer
from dnr_jax.training.sparse import make_sparse_step
from dnr_jax.training.step import Game, Step, TrainState, init_state
from dnr_jax.training.stream import streamed
from dnr_jax.types import Batch, Task

Row = dict[str, Any]
SMALL = {"width": 16, "layers": 1, "history_layers": 1, "heads": 2, "feed_forward": 16}
# The table, and its moments: Adam's two, or one number per row.
STATE_COPIES = {"dense": 3, "lazy_adam": 3, "rowwise_adagrad": 1}


class Work(NamedTuple):
    """A plain PRM at the standard shapes, ready to train on a layout of devices."""

    step: Step
    draw: Callable[[jax.Array], TrainState]
    layout: sharding.DeviceLayout


def make_work(
    example: Batch,
    *,
    items: int,
    devices: int = 1,
    shard_tables: bool = False,
    updates: str = "dense",
    **sizes: Any,
) -> Work:
    layout = sharding.make_layout(count=devices, shard_tables=shard_tables)
    spec = standard_case.SPEC
    spec = spec._replace(sizes=dict(spec.sizes) | {"item": items + 2})
    spec, knobs = sharding.rounded(spec, layout), standard_case.PRM | sizes
    reranker = rerankers.build("prm", Task(spec), **knobs)
    adam = OptimizerSettings(tables=updates)
    optimizer = two_player_optimizer(adam, adam, steps_per_epoch=(10_000, 10_000))
    game = Game(reranker, None, None, own_loss=None, objective=ObjectiveSettings())
    first = jax.tree.map(lambda a: jnp.asarray(a[:1]), example)
    draw = partial(
        init_state, reranker=reranker, generator=None, optimizer=optimizer, example=first
    )
    sparse = () if updates == "dense" else ("reranker",)
    step = make_sparse_step(game, optimizer, spec=spec, players=sparse, plays=False)
    return Work(sharding.split_step(layout, step), draw, layout)


class Training:
    """Successive epochs of one seed; a call runs one and returns the arrays to wait for."""

    def __init__(self, work: Work, epoch: Epoch, data: Batch, count: int, batch_size: int):
        self.plan = alternate(-(-count // batch_size), generator_updates=0, reranker_updates=1)
        self._rows = partial(rows_of_epoch, count, batch_size, self.plan, seeds=[0])
        self._epoch, self._data, self._number = epoch, data, 0
        self._states = stack_states([sharding.build(work.layout, work.draw, jax.random.key(0))])
        self.losses: np.ndarray = np.zeros(0)

    def __call__(self) -> TrainState:
        rows, self._number = self._rows(epoch=self._number), self._number + 1
        self._states, terms = self._epoch(self._states, self._data, rows, self.plan.turns)
        self.losses = np.asarray(terms["direct"][0])
        return self._states


def resident(work: Work, data: Batch, batch_size: int) -> Training:
    epoch = make_epoch(work.step, seeds=seed_axis())
    held = sharding.replicate(work.layout, data)
    return Training(work, epoch, held, len(data.scores), batch_size)


def from_host(work: Work, data: Batch, batch_size: int, *, part: int) -> Training:
    count = len(data.scores)
    plan = alternate(-(-count // batch_size), generator_updates=0, reranker_updates=1)
    put = partial(sharding.put_batches, work.layout)
    epoch = make_epoch(work.step, seeds=seed_axis(), take=loader.pick)
    return Training(work, streamed(epoch, plan, batches=part, put=put), data, count, batch_size)


def slope(sizes: list[int], seconds: list[float]) -> float:
    """Fit log(seconds) = slope log(size) + constant by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def requests(smoke: bool) -> list[Row]:
    """Measure seconds per epoch against the requests of the split: slope 1 = linear."""
    sizes = [32, 64] if smoke else [512, 1024, 2048, 4096]
    batch_size, knobs = (16, standard_case.TINY) if smoke else (128, {})
    runs = {}
    for size in sizes:
        data = standard_case.make_batch(size)
        runs[size] = resident(make_work(data, items=standard_case.ITEMS, **knobs), data, batch_size)
    timings = harness.time_in_turn({str(n): run for n, run in runs.items()}, repeats=2)
    seconds = [timings[str(size)].best for size in sizes]
    rows = [
        {"requests": n, "seconds/epoch": s, "ms/request": 1e3 * s / n}
        for n, s in zip(sizes, seconds, strict=True)
    ]
    return [row | {"slope of all": slope(sizes, seconds)} for row in rows]


def catalogue(smoke: bool) -> list[Row]:
    """Measure seconds per step against the items, by table update; an epoch has 32 steps."""
    sizes = [1000] if smoke else [10**4, 10**5, 10**6, 4 * 10**6]
    knobs, batch_size, steps = (standard_case.TINY, 8, 2) if smoke else (SMALL, 64, 32)
    rows: list[Row] = []
    for updates in UPDATES:
        seconds = []
        for items in sizes:
            data = standard_case.make_batch(steps * batch_size, items=items)
            run = resident(make_work(data, items=items, updates=updates, **knobs), data, batch_size)
            seconds.append(harness.time_calls(run, repeats=3).best / steps)
            row = {"updates": updates, "items": items, "table MB": items * knobs["width"] * 4e-6}
            rows.append(row | {"ms/step": 1e3 * seconds[-1], "of first": seconds[-1] / seconds[0]})
    return rows


def stream(smoke: bool) -> list[Row]:
    """Measure requests per second with the split on the device, and with memory-mapped files."""
    cases = {"d = 128, 2 + 2 layers": (2048, 128, {}), "d = 16, 1 + 1 layers": (8192, 128, SMALL)}
    if smoke:
        cases = {"smoke": (48, 16, standard_case.TINY)}
    rows: list[Row] = []
    for name, (count, batch_size, knobs) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            data = mapped(standard_case.make_batch(count), Path(folder))
            make = partial(make_work, data, items=standard_case.ITEMS, **knobs)
            calls: dict[str, Any] = {"device": resident(make(), load(data), batch_size)}
            for part in (2,) if smoke else (1, 4, 8):
                calls[f"host, {part} a part"] = from_host(make(), data, batch_size, part=part)
            timings = harness.time_in_turn(calls, repeats=2 if smoke else 3)
        best = timings["device"].best
        rows += [
            {
                "model": name,
                "data": where,
                "requests/s": count / timing.best,
                "of device": best / timing.best,
                "losses apart (relative)": _apart(calls[where].losses, calls["device"].losses),
            }
            for where, timing in timings.items()
        ]
    return rows


def _apart(losses: Any, reference: Any) -> float:
    """Return the largest relative gap of losses: rounding, because programs fuse differently."""
    return float(np.max(np.abs(losses - reference) / np.abs(reference)))


def devices(smoke: bool) -> list[Row]:
    """Run one epoch on 1, 2, 4, ... devices: equal losses, and requests per second."""
    count, batch_size, knobs = (44, 16, standard_case.TINY) if smoke else (2000, 128, SMALL)
    data, reference = standard_case.make_batch(count), np.zeros(0)
    rows: list[Row] = []
    for size in powers_of_two(len(jax.devices())):
        work = make_work(data, items=standard_case.ITEMS, devices=size, **knobs)
        run = resident(work, data, batch_size)
        run()
        reference = run.losses if size == 1 else reference
        apart = np.max(np.abs(run.losses / reference - 1))
        seconds = harness.time_calls(run, repeats=2, warmup=0).best
        rows.append(
            {
                "devices": size,
                "requests/s": count / seconds,
                "losses apart (relative)": float(apart),
            }
        )
    return rows


def memory(smoke: bool) -> list[Row]:
    """Count bytes per device of a compiled train step with 10^8 items; nothing is run."""
    items, knobs, batch_size, ways = (
        (10**4, standard_case.TINY, 16, ("dense", "rowwise_adagrad"))
        if smoke
        else (10**8, {"width": 64}, 512, UPDATES)
    )
    data = standard_case.make_batch(batch_size)
    rows: list[Row] = []
    for updates, size in product(ways, powers_of_two(len(jax.devices()))):
        laid_out = {"devices": size, "shard_tables": True, "updates": updates}
        work = make_work(data, items=items, **laid_out, **knobs)
        compiled = compile_step(work, data)
        stats, text = compiled.memory_analysis(), compiled.as_text()
        copy = 4 * items * knobs["width"] / size
        rows.append(
            {
                "updates": updates,
                "devices": size,
                "one copy of its rows GiB": copy / 2**30,
                "state GiB": stats.argument_size_in_bytes / 2**30,
                "scratch GiB": stats.temp_size_in_bytes / 2**30,
                "updated in place": stats.alias_size_in_bytes > STATE_COPIES[updates] * copy * 0.99,
                "table rows gathered whole": gathers_table(text, items),
            }
        )
    return rows


def compile_step(work: Work, data: Batch) -> Any:
    """Compile one donated step from shapes alone."""
    state = jax.eval_shape(work.draw, jax.eval_shape(jax.random.key, 0))
    if work.layout.alone:
        return jax.jit(work.step, donate_argnums=0).lower(state, data, RERANKER).compile()
    where = sharding.shardings(work.layout, state)
    state = jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), state, where
    )
    return jax.jit(work.step, donate_argnums=0).lower(state, data, RERANKER).compile()


def gathers_table(text: str, items: int) -> bool:
    """Tell whether any all-gather of a compiled program yields the rows of all items."""
    shapes = (
        line.split("[", 1)[-1].split("]")[0] for line in text.splitlines() if " all-gather(" in line
    )
    return any(int(n) >= items for shape in shapes for n in shape.split(",") if n.isdigit())


def powers_of_two(limit: int) -> list[int]:
    return [2**n for n in range(limit.bit_length()) if 2**n <= limit]


def mapped(batch: Batch, folder: Path) -> Batch:
    """Write the arrays of a split to files and map them into memory."""
    leaves, tree = jax.tree.flatten(batch)
    for number, leaf in enumerate(leaves):
        np.save(folder / f"{number}.npy", leaf)
    files = [folder / f"{number}.npy" for number in range(len(leaves))]
    return jax.tree.unflatten(
        tree,
        [
            np.load(f, mmap_mode="r") if leaf.size else leaf
            for f, leaf in zip(files, leaves, strict=True)
        ],
    )


def load(batch: Batch) -> Batch:
    return jax.tree.map(np.array, batch)


SECTIONS: dict[str, Callable[[bool], list[Row]]] = {
    "requests": requests,
    "catalogue": catalogue,
    "stream": stream,
    "devices": devices,
    "memory": memory,
}


def main(argv: list[str]) -> None:
    parser = harness.parser(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", choices=SECTIONS, help="what grows")
    parser.add_argument("--cpu-devices", type=int, default=0, help="split the CPU into so many")
    options = parser.parse_args(argv)
    if options.cpu_devices:
        jax.config.update("jax_num_cpu_devices", options.cpu_devices)
    rows = SECTIONS[options.what](options.smoke)
    harness.report(f"scaling: {options.what}", rows, options.json)


if __name__ == "__main__":
    main(sys.argv[1:])
