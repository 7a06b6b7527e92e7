"""Continue from an earlier model: its parameters replace fresh ones, and its vocabularies grow.

A vocabulary that has grown is sorted again, so the id of a known value may change. Its row in a
table of `FeatureEmbedding` moves with it; rows of new values keep their fresh draws. All other
parameters are the earlier ones. The noise generator is not part of a model folder, so it starts
afresh.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from dnr_jax import sealed, settings
from dnr_jax.data import encoders
from dnr_jax.data.encoders import KNOWN, Encoders
from dnr_jax.experiment.rows import Row
from dnr_jax.io import model_files
from dnr_jax.io.run_folder import ENCODERS
from dnr_jax.nn.embeddings import FeatureEmbedding, row_offsets
from dnr_jax.rerankers import RERANKERS
from dnr_jax.types import Array, Batch, FeatureSpec, Params, Request, Reranker, Task

TABLE = "table"  # the parameter of `FeatureEmbedding`


class Start(NamedTuple):
    """An earlier model.

    Attributes:
      card: its model card.
      params: its parameters, `float32` NumPy arrays.
      encoders: the encoders that made its arrays.
    """

    card: Mapping[str, Any]
    params: Params
    encoders: Encoders


class Graft(NamedTuple):
    """How earlier parameters replace fresh ones.

    Attributes:
      params: the earlier parameters.
      rows: for each leaf, in the order of `jax.tree.leaves`: None to replace the whole leaf, or
        `(old, new)`, `int32 [V]` each: row `old[i]` moves to row `new[i]`.
    """

    params: Params
    rows: tuple[tuple[np.ndarray, np.ndarray] | None, ...]

    def put(self, fresh: Params, earlier: Params) -> Params:
        """Put earlier parameters (`self.params`, as an input of the program) into fresh ones."""
        leaves, tree = jax.tree.flatten(fresh)
        olds = jax.tree.leaves(earlier)
        grown = map(_put, leaves, olds, self.rows)
        return jax.tree.unflatten(tree, list(grown))


def read(path: Path) -> Start:
    """Read a model folder.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: it is damaged, or of another version; see `model_files.load`.
    """
    card = _card(path)
    sealed.check(path / ENCODERS / encoders.FILE, card["encoders_sha256"], cure=model_files.CURE)
    return Start(card, model_files.load(path)[1], encoders.load(path / ENCODERS))


def _card(path: Path) -> dict[str, Any]:
    if not (path / model_files.CARD).is_file():
        raise FileNotFoundError(
            f"config.start is {path}, which is not a model folder: give one that `dnr-jax train` "
            "or `dnr-jax pack` made"
        )
    return model_files.load(path)[0]


def digest(path: Path) -> str:
    """Return the hash of a model's parameters, which identifies it; see `read`."""
    return str(_card(path)["parameters_sha256"])


def make_graft(
    start: Start, row: Row, reranker: Reranker, task: Task, known: Encoders, example: Batch
) -> Graft:
    """Find where every earlier parameter goes.

    Args:
      start: the earlier model.
      row: the row to train.
      reranker: its model, built for `task`.
      task: task of the new data.
      known: encoders of the new data.
      example: a request of the new data.

    Raises:
      ValueError: the row's model differs from the earlier one, the new data has other features or
        lacks known values, or the model has parameters that cannot grow.
    """
    _check_row(start.card, row)
    ids = _moved(start.encoders, known)
    spec = start.encoders.spec._replace(sizes=start.card["task"]["sizes"])
    _check_spec(spec, task.spec)
    bare = task._replace(item_popularity=None, item_vectors=None)
    _check_build(row, bare)
    before = RERANKERS[row.reranker.name].build(bare._replace(spec=spec), row.reranker.settings)
    was, now = (_shapes(model, example.request, example.scores) for model in (before, reranker))
    specs = list(zip(was[1], now[1], strict=True))
    shapes = jax.tree_util.tree_leaves_with_path(now[0])
    olds = jax.tree_util.tree_leaves_with_path(start.params)
    if [path for path, _ in shapes] != [path for path, _ in olds]:
        raise ValueError(
            f"the parameters of {row.reranker.name} differ from the earlier model's, which an "
            "older version of this package trained: train a new one"
        )
    rows = tuple(
        _rows(path, old.shape, new.shape, specs, ids, row.reranker.name)
        for (path, old), (_, new) in zip(olds, shapes, strict=True)
    )
    return Graft(start.params, rows)


def _put(fresh: Array, old: Array, rows: tuple[np.ndarray, np.ndarray] | None) -> Array:
    if rows is None:
        return old
    before, now = rows
    return fresh.at[..., now, :].set(old[..., before, :])


def _moved(before: Encoders, now: Encoders) -> dict[str, np.ndarray]:
    """Return the new id of each old one, `int32 [ids]` by vocabulary; padding and unknown stay."""
    found = {}
    for name, words in before.vocabularies.items():
        if name not in before.spec.sizes:
            continue  # not a feature: names of requests
        new, old = now.vocabularies[name], words.keys
        missing = len(old) and (new.encode(np.asarray(old)) < KNOWN).any()
        if words.buckets != new.buckets or missing:
            raise ValueError(
                f"the new data does not know all values of {name} of the earlier model: prepare it "
                "with its encoders, --config.data.known=MODEL/encoders"
            )
        own = np.arange(KNOWN, new.size) if words.buckets else new.encode(np.asarray(old))
        found[name] = np.concatenate([np.arange(KNOWN), own[: words.size - KNOWN]]).astype(np.int32)
    return found


def _check_row(card: Mapping[str, Any], row: Row) -> None:
    """Refuse a row whose model differs from the earlier one."""
    own = {"name": row.reranker.name, **settings.plain(row.reranker.settings)}
    own, earlier = {**own, "dtype": row.compute.dtype}, {**card["reranker"], "dtype": card["dtype"]}
    lines = [
        f"{name} is {own.get(name)!r}, was {earlier.get(name)!r}"
        for name in sorted(own.keys() | earlier.keys())
        if own.get(name) != earlier.get(name)
    ]
    if lines:
        raise ValueError(
            f"row {row.key!r} is another model than the earlier one ({'; '.join(lines)}): it can "
            "only continue with its own settings; set these knobs back, or train a new model"
        )


def _check_spec(before: FeatureSpec, now: FeatureSpec) -> None:
    for part in (name for name in FeatureSpec._fields if name != "sizes"):
        old, new = getattr(before, part), getattr(now, part)
        if tuple(old) != tuple(new):
            raise ValueError(
                f"the new data has the {part} features {', '.join(new) or 'none'}, the earlier "
                f"model {', '.join(old) or 'none'}: prepare it with that model's encoders, "
                "--config.data.known=MODEL/encoders"
            )


def _check_build(row: Row, bare: Task) -> None:
    """Refuse a model that is built from its own catalogue's items, which `bare` does not have."""
    try:
        RERANKERS[row.reranker.name].build(bare, row.reranker.settings)
    except ValueError:
        raise ValueError(
            f"{row.reranker.name} cannot go on from an earlier model: it is built from the vectors "
            "of its catalogue, which new logs change, and its parameters mean nothing for another: "
            "train a new one"
        ) from None


def _shapes(
    reranker: Reranker, request: Request, scores: Array
) -> tuple[Params, list[FeatureSpec]]:
    """Return the shapes of a model's parameters, and the columns of its tables."""
    specs: list[FeatureSpec] = []

    def note(call: Any, arguments: Any, more: Any, context: Any) -> Any:
        if isinstance(context.module, FeatureEmbedding) and context.module.spec not in specs:
            specs.append(context.module.spec)
        return call(*arguments, **more)

    def init(key: Array) -> Params:  # a function of its own: none that JAX has traced before
        return reranker.init(key, request, scores)

    with nn.intercept_methods(note):
        return jax.eval_shape(init, jax.random.key(0)), specs


def _rows(
    path: tuple[Any, ...],
    old: tuple[int, ...],
    new: tuple[int, ...],
    specs: list[tuple[FeatureSpec, FeatureSpec]],
    ids: Mapping[str, np.ndarray],
    model: str,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Say which rows of a leaf move where; None for a leaf that is taken whole."""
    if path[-1].key == TABLE and len(new) > 1:
        own = [pair for pair in specs if (_count(pair[0]), _count(pair[1])) == (old[-2], new[-2])]
        found = [_stacked(*pair, ids) for pair in own]
        if found and all(np.array_equal(rows, found[0]) for rows in found):
            return found[0]
    if old == new:
        return None
    name = "/".join(key.key for key in path)
    raise ValueError(
        f"{model} cannot go on from an earlier model on data with new values: its parameter {name} "
        f"{list(old)}, now {list(new)}, is not a table of feature values, and only those can "
        "grow: train a new one"
    )


def _count(spec: FeatureSpec) -> int:
    return sum(spec.sizes[name] for name in row_offsets(spec))


def _stacked(
    before: FeatureSpec, now: FeatureSpec, ids: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return old and new rows of all vocabularies that are stacked in one table."""
    old, new = row_offsets(before), row_offsets(now)
    moved = {name: ids.get(name, np.arange(before.sizes[name])) for name in old}
    return (
        np.concatenate([old[name] + np.arange(len(m)) for name, m in moved.items()]),
        np.concatenate([new[name] + m for name, m in moved.items()]),
    )
