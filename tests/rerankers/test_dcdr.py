"""DCDR: what it shows, what each stage may move, and what the condition is."""

from functools import cache

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_contract import DCDR as KNOBS
from test_contract import model_of

from dnr_jax.nn.dropout import identity
from dnr_jax.nn.list_evaluator import list_value
from dnr_jax.nn.slates import top_list
from dnr_jax.rerankers import RERANKERS, build
from dnr_jax.rerankers.dcdr import DCDR, DCDRSettings, feedback_of
from dnr_jax.rerankers.dcdr.denoiser import LIKED, UNKNOWN

VARIANTS = ["dcdr", "dcdr_token_early"]


@cache
def seen_by(name):
    """Return the lists that a variant sees, which of them are real, and the evaluator's values."""
    model = model_of(name)
    settings = DCDRSettings(**(factories.SMALL | model.case.knobs))
    module, request = DCDR(factories.make_spec(), settings, 3), model.batch.request

    def read(module):
        memory = module.encode(request, drop=identity)
        logits = module.decode(memory, model.batch.scores, request.where, drop=identity)
        start = top_list(logits, request.where, 3)
        seen, real = module.diffusion.search(memory[0], request.where, start)
        clicks = module.evaluator(memory[1], seen, drop=identity)
        return start, seen, real, list_value(clicks, seen)

    run = factories.quick_jit(lambda params: module.apply({"params": params}, method=read))
    return jax.tree.map(np.asarray, run(model.params))


@pytest.mark.parametrize("name", VARIANTS)
def test_the_best_list_seen_is_shown(name):
    model, (start, seen, real, values) = model_of(name), seen_by(name)
    np.testing.assert_array_equal(seen[:, 0], start)
    order = np.asarray(model.rank(model.params, model.batch.request, model.batch.scores))
    moved = 0
    for row, first, lists, on, value in zip(order, start, seen, real, values, strict=True):
        best = lists[on][value[on].argmax()]
        best, first = best[best >= 0], first[first >= 0]
        np.testing.assert_array_equal(np.argsort(-row)[: len(best)], best)
        moved += not np.array_equal(best, first)
    assert moved > 0


@pytest.mark.parametrize("name", VARIANTS)
def test_other_candidates_follow_by_the_scorer(name):
    model = model_of(name)
    order = np.asarray(model.rank(model.params, model.batch.request, model.batch.scores))
    factories.assert_others_follow(order, model.logits(model.batch), model.batch.request.where)


def test_the_scorer_judges_each_candidate_by_itself():
    model = model_of("dcdr")
    batch = model.batch
    alone = batch.request.where & (jnp.arange(8) % 2 == 0)[None]
    fewer = batch.replace(request=batch.request.replace(where=alone), scores=batch.scores * alone)
    logits, others = (np.asarray(model.logits(b)) for b in (batch, fewer))
    np.testing.assert_allclose(logits[alone], others[alone], rtol=1e-4, atol=1e-5)


def test_the_condition_is_the_feedback_of_the_shown_list():
    batch = factories.make_batch()
    batch = batch.replace(
        slate=batch.slate.at[0].set(jnp.array([4, 2, -1])).at[1:].set(-1),
        labels=batch.labels.at[0].set(jnp.arange(8) == 4),
    )
    found = feedback_of(batch)
    np.testing.assert_array_equal(found[0], [LIKED, 0, UNKNOWN])
    assert bool((found[1:] == UNKNOWN).all())
    unjudged = batch.replace(weights=batch.weights.at[0, 4].set(0.0))
    np.testing.assert_array_equal(feedback_of(unjudged)[0], [UNKNOWN, 0, UNKNOWN])


@pytest.mark.parametrize("name", VARIANTS)
def test_an_evaluator_is_trained_first(name):
    assert RERANKERS["dcdr"].needs_slate
    assert [stage.name for stage in model_of(name).reranker.stages] == ["evaluator", "denoiser"]


@pytest.mark.parametrize("name", VARIANTS)
def test_the_draws_of_a_request_are_its_own(name):
    model = model_of(name)
    batch, key = model.batch, jax.random.key(1)
    loss = factories.quick_jit(model.reranker.stages[1].loss)

    def lost(batch):
        return float(loss(model.params, batch, key=key))

    backwards = jax.tree.map(lambda a: a[::-1], batch)
    np.testing.assert_allclose(lost(backwards), lost(batch), rtol=1e-5)
    moved = batch.replace(request=batch.request.replace(index=batch.request.index + 1))
    assert abs(lost(moved) - lost(batch)) > 1e-3


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"heads": 3}, "width is 8, which 3 heads cannot share"),
        ({"beam": 0}, "beam is 0: it must be 1 or more"),
        ({"noise_steps": 0}, "noise_steps is 0: it must be 1 or more"),
        ({"list_noise": "swap"}, "list_noise is 'swap': it must be one of permutation, token"),
        ({"first_beta": 0.0}, "first_beta is 0.0: it must be above 0 and below 1"),
        ({"first_beta": 0.6}, "first_beta is 0.6: it must be at most last_beta, 0.5"),
        ({"last_beta": 1.0}, "last_beta is 1.0: it must be above 0 and below 1"),
        ({"condition_dropout": 1.0}, "condition_dropout is 1.0: it must be 0 or more and below 1"),
        ({"dropout": 1.0}, "dropout is 1.0: it must be 0 or more and below 1"),
        ({"score_place": "head"}, "score_place is 'head': it must be one of late"),
    ],
)
def test_bad_knobs_are_named(knobs, message):
    with pytest.raises(ValueError, match=message):
        build("dcdr", factories.make_task(), **(factories.SMALL | KNOBS | knobs))
