"""bfloat16 compute over the table: near the float32 model, and float32 at every door."""

import math
from functools import cached_property, lru_cache, partial

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from held_programs import drop_if_many
from jax.extend.core import jaxprs_in_params
from test_contract import CASES, model_of

from dnr_jax import metrics, ops, types
from dnr_jax.nn import precision
from dnr_jax.rerankers import RERANKERS

HALF = "bfloat16"
OWN = {name for name, case in CASES.items() if name == case.name and RERANKERS[name].trains}
LEARNED = sorted(OWN | {"prm_early_rank", "sasrec", "setrank_msab_early"})
# Computed too: between them they use every block, and each costs two compilations.
COMPUTED = [
    "caser",
    "dcdr",
    "diffurec",
    "dlcm",
    "gru4rec",
    "mir",
    "nar4rec",
    "pier",
    "prm",
    "setrank",
]


class Half:
    """A case of the contract, computing in bfloat16."""

    def __init__(self, name):
        self.full = model_of(name)
        self.reranker = precision.compute_in(self.full.reranker, HALF)
        batch = self.full.batch
        self.judged = np.asarray(batch.request.where)
        self.score = factories.quick_jit(self._score)

    @cached_property
    def logits(self):
        batch = self.full.batch
        return self.score(self.full.params, batch.request, batch.scores)

    def _score(self, params, request, scores):
        return types.apply(self.reranker, params, request, scores)


@lru_cache(maxsize=1)
def half_of(name):
    return Half(name)


@pytest.fixture(params=LEARNED, scope="module")
def half(request):
    yield half_of(request.param)
    drop_if_many()


def products(jaxpr):
    """Yield (multiplications, both sides bfloat16) of the products outside heads and norms."""
    for equation in jaxpr.eqns:
        place = str(equation.source_info.name_stack)
        if "head" in place.lower() or "LayerNorm" in place:
            continue
        if equation.primitive.name == "dot_general":
            left, right = (variable.aval for variable in equation.invars)
            (_, summed), (_, shared) = equation.params["dimension_numbers"]
            once = math.prod(right.shape[axis] for axis in (*summed, *shared))
            size = math.prod(left.shape) * math.prod(right.shape) / once
            yield size, left.dtype == right.dtype == jnp.bfloat16
        repeats = equation.params.get("length", 1)
        for inner in jaxprs_in_params(equation.params):
            for size, is_half in products(inner):
                yield size * repeats, is_half


@pytest.mark.parametrize("half", COMPUTED, indirect=True)
def test_logits_are_float32_and_near_those_of_the_float32_model(half):
    expected = np.asarray(half.full.logits(half.full.batch))
    assert half.logits.dtype == jnp.float32
    assert np.all(np.asarray(half.logits)[~half.judged] == ops.MASKED_LOGIT)
    gap = np.abs(np.asarray(half.logits) - expected)[half.judged]
    spread = np.std(expected[half.judged])
    assert 0 < np.quantile(gap, 0.9) < 0.15 * spread
    # A layer norm over 8 nearly equal numbers enlarges their rounding at single candidates.
    assert gap.max() < spread


@pytest.mark.parametrize("half", COMPUTED, indirect=True)
def test_logits_have_more_digits_than_bfloat16(half):
    logits = np.asarray(half.logits)[half.judged]
    on_the_grid = logits == logits.astype(jnp.bfloat16).astype(np.float32)
    assert on_the_grid.mean() < 0.2


def test_most_multiplications_are_of_bfloat16_and_logits_of_float32(half):
    batch = half.full.batch
    program = half.score.trace(half.full.params, batch.request, batch.scores).jaxpr
    assert [out.dtype for out in program.out_avals] == [np.dtype("float32")]
    sizes = list(products(program.jaxpr))  # none where all but the head is embeddings
    assert sum(size for size, is_half in sizes if is_half) >= 0.8 * sum(size for size, _ in sizes)


def test_losses_are_float32(half):
    batch, key = half.full.batch, jax.random.key(1)
    for stage in half.reranker.stages:
        loss = jax.eval_shape(partial(stage.loss, train=True), half.full.params, batch, key=key)
        assert loss.dtype == np.dtype("float32"), stage.name


def test_stage_losses_are_near_those_of_the_float32_model():
    for name in ("setrank", "nar4rec"):
        half, batch = half_of(name), half_of(name).full.batch
        for full, rounded in zip(half.full.reranker.stages, half.reranker.stages, strict=True):
            expected, value = (
                float(factories.quick_jit(stage.loss)(half.full.params, batch))
                for stage in (full, rounded)
            )
            assert value == pytest.approx(expected, rel=0.03), (name, full.name)
            assert value != expected


def test_an_arranged_list_is_float32():
    half, batch = half_of("nar4rec"), half_of("nar4rec").full.batch
    order = jax.eval_shape(
        lambda p: types.rank(half.reranker, p, batch.request, batch.scores), half.full.params
    )
    assert order.dtype == jnp.float32


def test_a_late_head_sees_differences_of_scores_that_bfloat16_would_round_away():
    half, batch = half_of("prm"), half_of("prm").full.batch
    scores = jnp.where(batch.request.where, 0.5, 0.0)
    moved = jnp.where(batch.request.where, scores + 1e-4, 0.0)
    assert (scores.astype(jnp.bfloat16) == moved.astype(jnp.bfloat16)).all()
    base, rise = (half.score(half.full.params, batch.request, x) for x in (scores, moved))
    full_base, full_rise = (half.full.score(batch.request, x) for x in (scores, moved))
    slopes = [(b - a)[half.judged] / 1e-4 for a, b in ((base, rise), (full_base, full_rise))]
    assert np.abs(slopes[1]).min() > 0.01
    np.testing.assert_allclose(slopes[0], slopes[1], rtol=0.3, atol=0.02)


def test_embedding_tables_are_rounded_after_the_gather():
    half, batch = half_of("prm"), half_of("prm").full.batch
    rounded = precision.round_parameters(half.full.params, jnp.bfloat16)
    leaves = jax.tree_util.tree_leaves_with_path(rounded)
    kept = [jax.tree_util.keystr(path) for path, leaf in leaves if leaf.dtype == jnp.float32]
    assert [place for place in kept if "LayerNorm" not in place] == [
        "['request_encoder']['FeatureEmbedding_0']['table']"
    ]
    assert len(kept) < len(leaves) / 2
    memory = jax.eval_shape(half.reranker.encode, half.full.params, batch.request)
    assert memory.inner.dtype == jnp.bfloat16


def test_float32_is_the_model_itself_and_other_names_are_refused():
    reranker = model_of("prm").reranker
    assert precision.compute_in(reranker, "float32") is reranker
    with pytest.raises(ValueError, match="'float16' is unknown: choose one of"):
        precision.compute_in(reranker, "float16")


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_metrics_refuse_half_precision_logits(dtype):
    logits, labels = jnp.zeros((2, 5), dtype), jnp.zeros((2, 5))
    with pytest.raises(TypeError, match="16 bits"):
        metrics.evaluate_batch(logits, labels, labels > -1, k=2)
    with pytest.raises(TypeError, match="16 bits"):
        metrics.build("auc", k=2)(logits, labels, labels > -1)
