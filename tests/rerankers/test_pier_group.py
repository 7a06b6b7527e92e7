"""The group's PIER: its noisy scores, its loss, and what it is in the terms of DNR."""

import factories
import jax
import numpy as np
import pytest
from test_contract import model_of

from dnr_jax import noise, objectives
from dnr_jax.rerankers import build
from dnr_jax.rerankers.pier_group import noisy_scores

KEY = jax.random.key(5)
BATCH = factories.make_batch(seed=3, B=40)
WHERE = np.asarray(BATCH.request.where)


def test_noisy_scores_span_the_interval_and_keep_the_positives_on_top():
    x, z = np.asarray(noisy_scores(KEY, BATCH)), np.asarray(BATCH.labels)
    assert np.all(x[~WHERE] == 0)
    mixed = 0
    for row, labels, real in zip(x, z, WHERE, strict=True):
        if real.sum() == 1:
            assert row[real] == 0.5
            continue
        assert row[real].min() == 0
        np.testing.assert_allclose(row[real].max(), 1, rtol=1e-6)
        if len(set(labels[real])) == 2:
            mixed += 1
            # 0.95 and 0.05 before the scaling, at worst.
            assert row[real & (labels == 1)].min() > row[real & (labels == 0)].max() + 0.8
    assert mixed > 10


def test_noisy_scores_are_those_of_dnr_with_a_share_of_one_eleventh():
    beta = noise.build("beta", lambda_c=1 / 11, alpha=0.5, beta=0.5)
    np.testing.assert_allclose(noisy_scores(KEY, BATCH), beta.sample({}, KEY, BATCH), atol=1e-5)


def test_a_draw_belongs_to_its_request():
    part = jax.tree.map(lambda a: a[7:9], BATCH)
    np.testing.assert_array_equal(noisy_scores(KEY, part), noisy_scores(KEY, BATCH)[7:9])
    assert np.any(np.asarray(noisy_scores(jax.random.key(6), part)) != noisy_scores(KEY, part))


def test_as_a_scorer_it_is_prm():
    ours, prm = model_of("pier_group"), model_of("prm")
    np.testing.assert_array_equal(ours.logits(ours.batch), prm.logits(prm.batch))


def test_the_loss_is_that_of_dnr_with_a_tenth_of_the_denoising_loss():
    model = model_of("pier_group")
    batch = model.batch
    loss = factories.quick_jit(model.reranker.stages[0].loss)(model.params, batch, key=KEY)
    noisy = noisy_scores(jax.random.split(KEY, 4)[1], batch)
    logits = [model.score(batch.request, x) for x in (batch.scores, noisy)]
    settings = objectives.ObjectiveSettings(lambda_m=0.1)
    expected, _ = objectives.reranker_loss(*logits, batch.labels, batch.weights, settings=settings)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    plain = objectives.direct_loss(logits[0], batch.labels, batch.weights, loss="bce")
    assert float(loss) > float(plain)


def test_unlike_the_groups_each_score_stands_with_its_own_candidate():
    model = model_of("pier_group")
    batch = model.batch
    order = np.random.default_rng(2).permutation(batch.scores.shape[1])
    request = batch.request.replace(
        candidates=batch.request.candidates[:, order], where=batch.request.where[:, order]
    )
    base = np.asarray(model.logits(batch))[:, order]
    together = model.score(request, batch.scores[:, order])
    apart = model.score(request, batch.scores)
    real = np.asarray(request.where)
    np.testing.assert_allclose(np.asarray(together)[real], base[real], rtol=1e-4, atol=1e-5)
    assert np.abs(np.asarray(apart)[real] - base[real]).max() > 1e-3


def test_bad_knobs_are_named():
    with pytest.raises(ValueError, match="positions is 'shown': it must be one of"):
        build("pier_group", factories.make_task(), positions="shown")
