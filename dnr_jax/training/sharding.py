"""Placement on devices: batches are split, parameters replicated, tables sharded by rows if asked.

There is one mesh axis, `DATA`. Programs are written for one device and mean the same on many: the
constraints placed here tell the compiler where arrays lie, and it adds the communication. Losses
are sums over the whole batch, and random draws depend on a request's own number or on its place in
the whole batch. So the results differ from those on one device only by the order of sums.

On one device every function here returns its argument, placed on that device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dnr_jax.data import loader
from dnr_jax.nn import tables
from dnr_jax.objectives import Terms
from dnr_jax.training.step import Step, TrainState
from dnr_jax.types import Array, Batch, FeatureSpec, Params, Request

DATA = "data"
WHOLE, SPLIT = PartitionSpec(), PartitionSpec(DATA)
# Vocabularies of sharded tables are rounded up to a multiple of this. So the parameters, and with
# them the results, are the same on any number of devices that divides it.
TABLE_ROWS = 1024

# `(params, request, scores) -> logits`, as `types.apply` of a model, or an order, as its `rank`.
Apply = Callable[[Params, Request, Array], Array]


class DeviceLayout(NamedTuple):
    """The devices of a run and how its arrays lie on them.

    Attributes:
      mesh: devices along the axis `DATA`.
      shard_tables: embedding tables and their optimiser state are sharded by rows over the
        devices; False = replicated, like all other parameters.
    """

    mesh: Mesh
    shard_tables: bool

    @property
    def alone(self) -> bool:
        """Whether there is only one device, so that nothing has to be laid out."""
        return self.mesh.size == 1


def make_layout(*, count: int, shard_tables: bool) -> DeviceLayout:
    """Lay a run out over the first `count` devices (of all processes); 0 = all there are.

    Raises:
      ValueError: there are fewer devices, some process would have none, or tables cannot be cut
        into that many equal parts.
    """
    devices = jax.devices()
    size = count or len(devices)
    if not 0 < size <= len(devices) or (jax.process_count() > 1 and size < len(devices)):
        raise ValueError(
            f"config.devices.count is {count}, but there are {len(devices)} devices in "
            f"{jax.process_count()} process(es): choose 0 for all of them"
            + (f", or 1 to {len(devices)}" if jax.process_count() == 1 else "")
        )
    if shard_tables and TABLE_ROWS % size:
        raise ValueError(
            f"config.devices.shard_tables needs a number of devices that divides {TABLE_ROWS}, "
            f"not {size}: set config.devices.count"
        )
    mesh = jax.make_mesh((size,), (DATA,), axis_types=(AxisType.Auto,), devices=devices[:size])
    return DeviceLayout(mesh, shard_tables)


def rounded(spec: FeatureSpec, layout: DeviceLayout) -> FeatureSpec:
    """Pad vocabularies with ids that never occur, so that sharded tables have equal parts."""
    if not layout.shard_tables:
        return spec
    return spec._replace(sizes={n: -(-v // TABLE_ROWS) * TABLE_ROWS for n, v in spec.sizes.items()})


def replicate(layout: DeviceLayout, tree: Any) -> Any:
    """Replicate host arrays, which are the same in every process, on every device."""
    if layout.alone:
        return jax.device_put(tree)
    whole = NamedSharding(layout.mesh, WHOLE)
    return jax.tree.map(
        lambda a: jax.make_array_from_callback(a.shape, whole, lambda index: a[index]), tree
    )


def put_batches(layout: DeviceLayout, data: Batch, rows: np.ndarray) -> Batch:
    """Read the batches `rows` `int32 [P, B]` of a split on the host, a share for each device.

    Returns:
      Arrays `[P, B', ...]`, where B' is B rounded up to a multiple of the number of devices with
      empty requests. Only rows of this process's devices are read.
    """
    if layout.alone:
        return jax.device_put(loader.read(data, rows))
    missing = -rows.shape[1] % layout.mesh.size
    rows = np.pad(rows, [(0, 0), (0, missing)], constant_values=loader.PADDING_ROW)
    split = NamedSharding(layout.mesh, PartitionSpec(None, DATA))
    places = split.addressable_devices_indices_map(rows.shape)
    shards = [jax.device_put(loader.read(data, rows[i]), d) for d, i in places.items()]

    def join(*parts: Array) -> Array:
        shape = (*rows.shape, *parts[0].shape[2:])
        return jax.make_array_from_single_device_arrays(shape, split, list(parts))

    return jax.tree.map(join, *shards)


def build(layout: DeviceLayout, make: Callable[..., Any], *inputs: Any) -> Any:
    """Compute `make(*inputs)`, parameters or training state, on the devices where it belongs.

    It is one program, so on several devices no table is ever whole on one of them. It is compiled
    without optimisation, because it runs once or a few times.
    """
    quickly = {"xla_backend_optimization_level": 0}
    if layout.alone:
        return jax.jit(make, compiler_options=quickly)(*inputs)
    where = shardings(layout, jax.eval_shape(make, *inputs))
    return jax.jit(make, out_shardings=where, compiler_options=quickly)(*inputs)


def place(layout: DeviceLayout, tree: Any) -> Any:
    """Lay out a state of which every process has all; the result may be donated."""
    if layout.alone:
        return jax.device_put(tree)
    return jax.tree.map(_scatter, tree, shardings(layout, tree))


def _scatter(array: Any, where: NamedSharding) -> Array:
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        data = _scatter(jax.random.key_data(array), where)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
    host = np.asarray(array)
    return jax.make_array_from_callback(host.shape, where, lambda index: host[index].copy())


def shardings(layout: DeviceLayout, tree: Any) -> Any:
    """Return the sharding of each leaf of a tree that holds parameters or optimiser state."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(layout.mesh, _specify(layout, path, leaf)), tree
    )


def _specify(layout: DeviceLayout, path: tuple[Any, ...], leaf: Any) -> PartitionSpec:
    """Cut tables along their rows, the second-to-last axis; axes before it are stacked seeds."""
    name = getattr(path[-1], "key", None) if path else None
    is_table = name in tables.NAMES and leaf.ndim >= 2 and leaf.shape[-2] % TABLE_ROWS == 0
    if not (layout.shard_tables and is_table):
        return WHOLE
    return PartitionSpec(*[None] * (leaf.ndim - 2), DATA)


def split_batch(layout: DeviceLayout, batch: Batch) -> Batch:
    """Split a batch over the devices, inside a program.

    A batch whose size is not a multiple of the devices is padded with empty requests, which do not
    count.
    """
    if layout.alone:
        return batch
    count = len(batch.scores)
    missing = -count % layout.mesh.size
    if missing:
        rows = jnp.r_[jnp.arange(count), jnp.full(missing, loader.PADDING_ROW)]
        batch = loader.take(batch, rows)
    return _constrain(layout, batch, SPLIT)


def split_step(layout: DeviceLayout, step: Step) -> Step:
    """Make the step that splits its batch over the devices and keeps the state's layout."""
    if layout.alone:
        return step

    def sharded(state: TrainState, batch: Batch, turn: Array) -> tuple[TrainState, Terms]:
        state, terms = step(state, split_batch(layout, batch), turn)
        state = jax.lax.with_sharding_constraint(state, shardings(layout, state))
        return state, _constrain(layout, terms, WHOLE)

    return sharded


def split_score(layout: DeviceLayout, score: Apply) -> Apply:
    """Make the scorer that splits its requests over the devices; every device gets all logits."""
    if layout.alone:
        return score

    def sharded(params: Params, request: Request, scores: Array) -> Array:
        count = len(scores)

        def fill(array: Array) -> Array:  # zeros: padding ids, `where` False
            missing = -count % layout.mesh.size
            return jnp.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))

        filled = jax.tree.map(fill, (request, scores))
        logits = score(params, *_constrain(layout, filled, SPLIT))
        return _constrain(layout, logits, WHOLE)[:count]

    return sharded


def _constrain(layout: DeviceLayout, tree: Any, spec: PartitionSpec) -> Any:
    return jax.lax.with_sharding_constraint(tree, NamedSharding(layout.mesh, spec))
