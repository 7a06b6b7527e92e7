"""Random requests with the irregularities of real ones: padding, short lists, no positives."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.quick_compile import HAS_OLD_EMITTERS
from dnr_jax.types import Batch, FeatureSpec, Params, Request, Reranker, Task

# Compiling takes nearly all the time of a test on tiny arrays: four times less with these.
quick_jit = partial(
    jax.jit,
    compiler_options={"xla_backend_optimization_level": 0}
    | ({"xla_cpu_use_fusion_emitters": False} if HAS_OLD_EMITTERS else {}),
)

# The smallest trunk in which every part is there.
SMALL: dict[str, Any] = {
    "width": 8,
    "layers": 1,
    "history_layers": 1,
    "heads": 2,
    "feed_forward": 8,
    "dropout": 0.2,
}
SIZES = {"user": 12, "gender": 4, "weekday": 9, "item": 40, "category": 7, "feedback": 5}


def make_spec() -> FeatureSpec:
    """Two columns of each kind; history shares two vocabularies with the candidates."""
    return FeatureSpec(
        user=("user", "gender"),
        context=("weekday",),
        history=("item", "category", "feedback"),
        item=("item", "category"),
        sizes=SIZES,
    )


def make_task(**known: Any) -> Task:
    """Say what a model may know of `make_batch`; lists have 3 places. `known` is set as given."""
    items = SIZES["item"]
    vectors = np.random.default_rng(0).normal(size=(items, 4)).astype(np.float32)
    return Task(make_spec(), 3, np.arange(items, dtype=np.float32), vectors)._replace(**known)


def initial_params(reranker: Reranker, batch: Batch, *, seed: int = 0) -> Params:
    """Draw parameters of the size that `init` gives them, by NumPy: `init` compiles for seconds.

    Kernels have variance 1 / fan-in, biases are 0, scales 1, and other vectors about 1 long.
    """

    def draw(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name in ("bias", "scale"):
            return np.full(shape, float(name == "scale"))
        return rng.normal(size=shape) / np.sqrt(shape[-2] if name == "kernel" else shape[-1])

    return _drawn(draw, reranker, batch, seed)


def random_params(reranker: Reranker, batch: Batch, *, scale: float = 0.5, seed: int = 0) -> Params:
    """Draw every parameter at random, biases and norms included; no equality is then by chance."""

    def draw(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
        # Norms stay near 1, as gradients would vanish below a stack of small ones.
        return float(name == "scale") + scale * rng.normal(size=shape)

    return _drawn(draw, reranker, batch, seed)


def _drawn(draw: Callable[..., np.ndarray], reranker: Reranker, batch: Batch, seed: int) -> Params:
    shapes = jax.eval_shape(reranker.init, jax.random.key(0), batch.request, batch.scores)
    rng = np.random.default_rng(seed)

    def one(path: tuple[jax.tree_util.DictKey, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.asarray(draw(rng, path[-1].key, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(one, shapes)


def _ids(rng: np.random.Generator, names: tuple[str, ...], *shape: int) -> np.ndarray:
    columns = [rng.integers(1, SIZES[name], shape) for name in names]
    return np.stack(columns, axis=-1).astype(np.int32)


def make_batch(seed: int = 0, B: int = 6, N: int = 8, T: int = 5, K: int = 3) -> Batch:
    """Draw a batch: 1 to N candidates at random places, 1 to T events, distinct items a request."""
    rng = np.random.default_rng(seed)
    spec = make_spec()
    where = np.arange(N) < rng.integers(1, N + 1, (B, 1))
    where[0] = True
    where = rng.permuted(where, axis=1)
    history_where = np.arange(T)[::-1] < rng.integers(1, T + 1, (B, 1))
    candidates = _ids(rng, spec.item, B, N)
    for row in candidates:
        row[:, 0] = 1 + rng.permutation(SIZES["item"] - 1)[:N]
    slate = np.full((B, K), -1, np.int32)
    exposed = np.zeros((B, N), bool)
    for row in range(B):
        shown = rng.permutation(np.flatnonzero(where[row]))[:K]
        slate[row, : len(shown)] = shown
        exposed[row, shown] = True
    request = Request(
        index=np.arange(B, dtype=np.uint32) + 100,
        user=_ids(rng, spec.user, B),
        context=_ids(rng, spec.context, B),
        history=_ids(rng, spec.history, B, T) * history_where[..., None],
        history_where=history_where,
        candidates=candidates * where[..., None],
        where=where,
    )
    batch = Batch(
        request=request,
        scores=(rng.random((B, N)) * where).astype(np.float32),
        labels=(exposed & (rng.random((B, N)) < 0.5)).astype(np.float32),
        exposed=exposed,
        slate=slate,
        weights=where.astype(np.float32),
    )
    return jax.tree.map(jnp.asarray, batch)


def make_full_batch() -> Batch:
    """Draw a batch without padding, all items of a request different."""
    batch, rng = make_batch(seed=3), np.random.default_rng(0)
    B, N = batch.scores.shape
    items = 2 + rng.permuted(np.tile(np.arange(38), (B, 1)), axis=1)[:, :N]
    candidates = np.stack([items, rng.integers(2, 7, (B, N))], axis=-1)
    request = batch.request.replace(
        where=jnp.ones((B, N), bool), candidates=jnp.asarray(candidates, jnp.int32)
    )
    return batch.replace(request=request, scores=jnp.asarray(rng.random((B, N)), jnp.float32))


def assert_others_follow(order, logits, where):
    """Check that real candidates outside a shown list, which have <= 0, are ordered by logits."""
    order, logits, real = np.asarray(order), np.asarray(logits), np.asarray(where)
    for shown, s, r in zip(order, logits, real, strict=True):
        larger = (s[r][None] > s[r][:, None]).sum(axis=1)
        rest = shown[r] <= 0
        assert rest.any() or r.sum() <= 6
        np.testing.assert_array_equal(shown[r][rest], -larger[rest])
