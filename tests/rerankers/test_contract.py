"""What every reranker of the table must hold, whatever it computes."""

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from held_programs import drop_if_many

from dnr_jax import ops, types
from dnr_jax.nn.adapter import trained_by
from dnr_jax.nn.trunk import Trunk
from dnr_jax.rerankers import RERANKERS, build
from dnr_jax.settings import defaults
from dnr_jax.types import Batch, Request


class Case(NamedTuple):
    """A model, its knobs beside those of the smallest trunk, and what it declares.

    Attributes:
      order_aware: the logits may depend on the storage order of the candidates.
      reads_scores: the logits depend on the scores, smoothly.
    """

    name: str
    knobs: dict[str, Any]
    order_aware: bool = False
    reads_scores: bool = True


EARLY = {"score_entry": "add", "score_place": "early"}
NONE = {"score_entry": "none"}
DCDR = {"noise_steps": 2, "first_beta": 0.2, "beam": 2}
NAR4REC = {"utility_threshold": 1.0}
CASES = {
    "advir": Case("advir", {}),
    "advir_early": Case("advir", EARLY),
    "caser": Case("caser", {"window": 4, "vertical": 2, "horizontal": 3}),
    "caser_none": Case(
        "caser", {"window": 4, "vertical": 2, "horizontal": 3, **NONE}, reads_scores=False
    ),
    "dcdr": Case("dcdr", DCDR),
    "dcdr_token_early": Case("dcdr", {**DCDR, "list_noise": "token", **EARLY}),
    "diffurec": Case(
        "diffurec",
        {"diffusion_steps": 4, "reverse_steps": 2, "reverse_samples": 2, "uncertainty": 0.1},
    ),
    "dlcm": Case("dlcm", NONE, reads_scores=False),
    "dlcm_early": Case("dlcm", {"score_place": "early"}),
    "egrerank": Case("egrerank", {"samples": 3, "realism": 0.1}),
    "glorank": Case("glorank", {"group_size": 4, "codes": 3}),
    "goalrank": Case("goalrank", {"group_size": 4, **EARLY}),
    "gru4rec": Case("gru4rec", {}),
    "gru4rec_early": Case("gru4rec", {"score_place": "early"}),
    "hetcomp": Case("hetcomp", {"snapshots": 2}),
    "irgan": Case("irgan", {"draws": 4}),
    "matching_transformer": Case("matching_transformer", {}),
    "matching_transformer_early": Case("matching_transformer", EARLY),
    "mge": Case("mge", {"inducing": 3, "utility_threshold": 1.0, "samples": 3}),
    "midnn": Case("midnn", {}),
    "mir": Case("mir", {}),
    "mir_early": Case("mir", EARLY),
    "mir_matching": Case("mir", {"matching": True}),
    "mmr": Case("mmr", {"relevance": 0.5}),
    "nar4rec": Case("nar4rec", NAR4REC),
    "nar4rec_early": Case("nar4rec", {**NAR4REC, **EARLY}),
    "pier": Case("pier", {}),
    "pier_early": Case("pier", EARLY),
    "pier_group": Case("pier_group", {}),
    "popularity": Case("popularity", {}, reads_scores=False),
    "prm": Case("prm", {}),
    "prm_matching": Case("prm", {"matching": True}),
    "prm_early_rank": Case("prm", {"positions": "rank", **EARLY}),
    "prm_index_causal": Case(
        "prm", {"positions": "index", "causal": True, **NONE}, order_aware=True, reads_scores=False
    ),
    "prm_pretrained": Case("prm", {"pretrained": True}),
    "random": Case("random", {}, reads_scores=False),
    "retriever": Case("retriever", {}),
    "reversed": Case("reversed", {}),
    "sasrec": Case("sasrec", NONE, reads_scores=False),
    "setrank": Case("setrank", {"inducing": 3}),
    "setrank_msab_early": Case(
        "setrank", {"attention": "msab", "score_entry": "weight", "score_place": "early"}
    ),
    "setrank_ordinal": Case(
        "setrank", {"inducing": 3, "positions": "rank", **NONE}, reads_scores=False
    ),
}


# One case a model, where another set of knobs could not tell more.
MODELS = sorted(name for name, case in CASES.items() if name == case.name)
# Their training is computed. Files of their own compare the gradients under the other cases' knobs
# with PyTorch, where that is installed, on irregular requests too; the knobs meet in other
# combinations there, and the rest of what training does is shown on the case without them.
CHECKED_BY_TORCH = {
    *("dlcm_early", "mir_early", "nar4rec_early", "prm_early_rank", "prm_index_causal"),
    *("setrank_msab_early", "setrank_ordinal"),
}
TAUGHT = sorted(CASES.keys() - CHECKED_BY_TORCH)
# Run op by op too: between them they use every block, and each op costs a compilation.
EAGER = ["dlcm", "gru4rec_early", "nar4rec", "prm", "setrank_ordinal"]


class Model:
    """A built case with its compiled functions; made once per case."""

    def __init__(self, case: Case):
        self.case = case
        self.reranker = made(case)
        self.batch = factories.make_batch()
        self.params = factories.initial_params(self.reranker, self.batch)
        # Seeds are trained side by side, and so all is shown on two of them, of one program.
        self.seeds = jax.tree.map(lambda leaf: np.stack([leaf, 1.25 * leaf]), self.params)
        self.apply = partial(types.apply, self.reranker)
        seed_axis = jax.vmap(self._score, in_axes=(0, None, None), axis_size=2)
        self.score_seeds = factories.quick_jit(seed_axis)
        # Where a model brings no loss of its own, DNR's is what teaches it.
        self.stages = (
            self.reranker.stages or trained_by(self.reranker, cross_entropy, log_odds=True).stages
        )
        self.lessons = factories.quick_jit(self._lessons)
        self.rank = factories.quick_jit(partial(types.rank, self.reranker))

    def _score(self, params: Any, request: Request, scores: jax.Array) -> jax.Array:
        # With a key, where the eager calls have none: train=False must ignore it.
        with jax.numpy_rank_promotion("raise"):
            return self.apply(params, request, scores, key=jax.random.key(9))

    def _lessons(self, params: Any, batch: Batch, key: jax.Array) -> list[Any]:
        """Value and gradient of every stage's loss."""
        with jax.numpy_rank_promotion("raise"):
            return [
                jax.value_and_grad(stage.loss)(params, batch, key=key, train=True)
                for stage in self.stages
            ]

    def score(self, request: Request, scores: Any) -> jax.Array:
        """Score by the parameters of the first seed."""
        return self.score_seeds(self.seeds, request, scores)[0]

    def logits(self, batch: Batch) -> jax.Array:
        return self.score(batch.request, batch.scores)


def made(case: Case) -> types.Reranker:
    trunk = factories.SMALL if issubclass(RERANKERS[case.name].settings, Trunk) else {}
    return build(case.name, factories.make_task(), **(trunk | case.knobs))


# Cases whose models make lists of their own; what the others show is the order of their logits.
ARRANGING = sorted(name for name, case in CASES.items() if made(case).arrange is not None)


@lru_cache(maxsize=1)
def model_of(name: str) -> Model:
    return Model(CASES[name])


@pytest.fixture(params=sorted(CASES), scope="module")
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    """A model for all its tests, one model after the other: their programs fill the memory."""
    yield model_of(request.param)
    drop_if_many()


def cross_entropy(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    return ops.weighted_mean(jax.nn.softplus(logits) - labels * logits, weights)


def irregular(batch: Batch) -> Batch:
    """Row 0 without candidates, row 1 without history, 2 without positives, 3 of one candidate."""
    row = np.arange(len(batch.scores))[:, None]
    where = np.asarray(batch.request.where) & (row != 0)
    where &= (row != 3) | (np.cumsum(where, axis=1) == 1)
    request = batch.request.replace(
        where=where, history_where=np.asarray(batch.request.history_where) & (row != 1)
    )
    return batch.replace(
        request=request,
        scores=np.asarray(batch.scores) * where,
        labels=np.asarray(batch.labels) * (where & (row != 2)),
        weights=np.asarray(batch.weights) * where,
    )


def finite(tree: Any) -> bool:
    """Whether all numbers are finite: by NumPy, as JAX would compile it for each shape."""
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def reordered(batch: Batch) -> tuple[np.ndarray, Batch]:
    """Move the candidates of all rows, and return the order too."""
    order = np.random.default_rng(1).permutation(batch.scores.shape[1])
    request = batch.request.replace(
        candidates=np.asarray(batch.request.candidates)[:, order],
        where=np.asarray(batch.request.where)[:, order],
    )
    return order, batch.replace(request=request, scores=np.asarray(batch.scores)[:, order])


def test_the_table_is_covered():
    assert {case.name for case in CASES.values()} == set(RERANKERS)


def test_logits_are_float32_masked_and_finite(model):
    logits = model.logits(model.batch)
    where = np.asarray(model.batch.request.where)
    assert logits.shape == where.shape
    assert logits.dtype == jnp.float32
    assert finite(logits)
    assert np.all(np.asarray(logits)[~where] == ops.MASKED_LOGIT)
    assert all(a.dtype == jnp.float32 for a in jax.tree.leaves(model.params))


def test_padding_content_never_matters(model):
    batch = model.batch
    request = batch.request
    garbage = request.replace(
        candidates=np.where(request.where[..., None], request.candidates, 3),
        history=np.where(request.history_where[..., None], request.history, 4),
    )
    scores = np.where(request.where, batch.scores, np.float32(np.nan))
    np.testing.assert_array_equal(model.logits(batch), model.score(garbage, scores))


def test_requests_do_not_see_each_other(model):
    reverse = jax.tree.map(lambda a: np.asarray(a)[::-1], model.batch)
    back = np.asarray(model.logits(reverse))[::-1]
    np.testing.assert_allclose(back, model.logits(model.batch), rtol=1e-5, atol=5e-6)


def test_order_of_candidates(model):
    order, batch = reordered(model.batch)
    logits = np.asarray(model.logits(model.batch))[:, order]
    same = np.allclose(model.logits(batch), logits, rtol=1e-4, atol=1e-5)
    assert same != model.case.order_aware


@pytest.mark.parametrize("model", EAGER, indirect=True)
def test_jit_equals_eager(model):
    batch = model.batch
    eager = model.apply(model.params, batch.request, batch.scores)
    np.testing.assert_allclose(model.logits(batch), eager, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", TAUGHT, indirect=True)
def test_gradients_reach_every_parameter(model):
    # A ReLU on a single number, as MIR's decay, may rest under one draw of dropout.
    lessons = [model.lessons(model.params, model.batch, jax.random.key(n)) for n in (1, 2, 3)]
    gradients = [gradient for lesson in lessons for _, gradient in lesson]
    moved = jax.tree.map(
        lambda _, *leaves: sum(np.abs(x).max() for x in leaves), model.params, *gradients
    )
    for path, size in jax.tree_util.tree_leaves_with_path(moved):
        assert 0 < size < np.inf, path


def test_scores_are_read_where_the_case_says_so(model):
    batch = model.batch
    other = model.score(batch.request, np.square(batch.scores))  # in the same order
    assert np.array_equal(other, model.logits(batch)) != model.case.reads_scores


@pytest.mark.parametrize("model", TAUGHT, indirect=True)
@pytest.mark.parametrize("odd", [False, True], ids=["regular", "irregular"])
def test_stages_teach_their_groups(model, odd):
    batch = irregular(model.batch) if odd else model.batch
    found = model.lessons(model.params, batch, jax.random.key(1))
    for stage, (value, gradient) in zip(model.stages, found, strict=True):
        assert value.shape == ()
        assert value.dtype == jnp.float32
        assert finite([value, gradient]), stage.name
        moved = {name for name in gradient if any(map(np.any, jax.tree.leaves(gradient[name])))}
        if stage.groups:
            assert moved == set(stage.groups), stage.name


@pytest.mark.parametrize("model", MODELS, indirect=True)
def test_stage_losses_need_a_key_in_training_only(model):
    for stage in model.reranker.stages:
        assert jax.eval_shape(stage.loss, model.params, model.batch).shape == ()
        with pytest.raises(ValueError, match="needs a key"):
            stage.loss(model.params, model.batch, train=True)


@pytest.mark.parametrize("model", ARRANGING, indirect=True)
def test_arranged_lists_stand_before_the_other_candidates(model):
    batch = model.batch
    where = np.asarray(batch.request.where)
    arguments = (model.params, batch.request, batch.scores)
    order = np.asarray(model.rank(*arguments))
    assert order.shape == where.shape
    assert np.all(order[~where] == ops.MASKED_LOGIT)
    size = factories.make_task().slate_size
    for row, real in zip(order, where, strict=True):
        count = min(size, real.sum())
        best = np.sort(row[real])[::-1]
        np.testing.assert_array_equal(best[:count], size - np.arange(count))
        assert np.all((best[count:] <= 0) & (best[count:] > -real.sum()))


@pytest.mark.parametrize("model", ARRANGING, indirect=True)
def test_arranged_order_moves_with_the_candidates(model):
    order, moved = reordered(model.batch)
    ranks, again = (
        np.asarray(model.rank(model.params, batch.request, batch.scores))
        for batch in (model.batch, moved)
    )
    np.testing.assert_allclose(again, ranks[:, order], rtol=1e-4, atol=1e-5)


def test_irregular_requests_stay_finite(model):
    batch = irregular(model.batch)
    logits, regular = np.asarray(model.logits(batch)), np.asarray(model.logits(model.batch))
    assert finite(logits)
    np.testing.assert_array_equal(logits[0], ops.MASKED_LOGIT)
    same = [2, 4, 5]
    np.testing.assert_allclose(logits[same], regular[same], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", TAUGHT, indirect=True)
def test_dropout_is_on_in_training_only(model):
    batch = model.batch
    first, second = (
        [loss for loss, _ in model.lessons(model.params, batch, jax.random.key(n))] for n in (1, 2)
    )
    drops = bool(jax.tree.leaves(model.params))
    assert (first != second) == drops
    np.testing.assert_array_equal(model.logits(batch), model.logits(batch))


@pytest.mark.parametrize("model", TAUGHT, indirect=True)
def test_what_is_drawn_in_training_does_not_depend_on_the_order_of_the_batch(model):
    batch, key = model.batch, jax.random.key(1)
    moved = jax.tree.map(lambda a: a[np.array([3, 0, 5, 1, 4, 2])], batch)
    losses, found = (
        [float(value) for value, _ in model.lessons(model.params, b, key)] for b in (batch, moved)
    )
    np.testing.assert_allclose(found, losses, rtol=1e-4, atol=1e-5)


def test_training_without_a_key_raises(model):
    batch = model.batch
    with pytest.raises(ValueError, match="needs a key"):
        model.reranker.encode(model.params, batch.request, train=True)
    memory = jax.eval_shape(model.reranker.encode, model.params, batch.request)
    with pytest.raises(ValueError, match="needs a key"):
        model.reranker.decode(model.params, memory, batch.scores, train=True)


@pytest.mark.parametrize("model", MODELS, indirect=True)
def test_lists_have_room_for_one_candidate(model):
    """By shapes alone; what is computed of one candidate is shown where the others are padding."""
    batch = factories.make_batch(N=1, K=1)
    calls = [types.apply, *([types.rank] if model.reranker.arrange else [])]
    for call in calls:
        found = partial(call, model.reranker)
        logits = jax.eval_shape(found, model.params, batch.request, batch.scores)
        assert (logits.shape, logits.dtype) == ((6, 1), jnp.float32)


def test_seeds_do_not_see_each_other(model):
    request, scores = model.batch.request, model.batch.scores
    both = np.asarray(model.score_seeds(model.seeds, request, scores))
    exchanged = jax.tree.map(lambda leaves: leaves[::-1], model.seeds)
    found = model.score_seeds(exchanged, request, scores)
    np.testing.assert_allclose(found, both[::-1], rtol=1e-4, atol=1e-5)
    assert np.array_equal(*both) == (not jax.tree.leaves(model.params))


def test_an_unknown_name_is_answered_with_the_nearest_one():
    with pytest.raises(ValueError, match=r"no reranker 'prn'; did you mean 'prm'\? .* popularity,"):
        build("prn", factories.make_task())


@pytest.mark.parametrize("name", sorted(RERANKERS))
def test_an_unknown_knob_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}: there is no knob 'depth'"):
        build(name, factories.make_task(), depth=3)


@pytest.mark.parametrize("name", sorted(n for n, entry in RERANKERS.items() if entry.trains))
@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"heads": 3}, "width is 128, which 3 heads cannot share"),
        ({"layers": 0}, "layers is 0: it must be 1 or more"),
        ({"history_layers": 0}, "history_layers is 0: it must be 1 or more"),
        ({"feed_forward": 0}, "feed_forward is 0: it must be 1 or more"),
        ({"dropout": 1.0}, "dropout is 1.0: it must be 0 or more and below 1"),
        ({"score_entry": "concat"}, "score_entry is 'concat': it must be one of none,"),
        ({"score_place": "head"}, "score_place is 'head': it must be one of late,"),
    ],
)
def test_bad_knobs_of_the_trunk_are_named(name, knobs, message):
    with pytest.raises(ValueError, match=message):
        build(name, factories.make_task(), **knobs)


@pytest.mark.parametrize("name", sorted(RERANKERS))
def test_every_model_has_defaults(name):
    settings = RERANKERS[name].settings
    assert all(value is not None for value in defaults(settings).values())
    assert (settings is Trunk or issubclass(settings, Trunk)) == RERANKERS[name].trains
    build(name, factories.make_task())


def test_who_needs_the_displayed_order_lists_or_judges_lists():
    needs = {name for name, entry in RERANKERS.items() if entry.needs_slate}
    arranging = {CASES[name].name for name in ARRANGING if RERANKERS[CASES[name].name].trains}
    assert needs == arranging | {"goalrank"}
