"""First stages: each against a formula, a slow reference, or a world made by hand."""

from __future__ import annotations

import importlib
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interaction_cases import interactions

from dnr_jax.data import lists as lists_
from dnr_jax.data.encoders import KNOWN
from dnr_jax.data.lists import TRAIN, VALID, Events
from dnr_jax.retrievers import build, cross_fit, liked
from dnr_jax.retrievers.als import ALSSettings, factors
from dnr_jax.retrievers.cascade import CascadeSettings
from dnr_jax.retrievers.joint import JointSettings, Outcome
from dnr_jax.retrievers.rankflow import RankFlowSettings
from dnr_jax.retrievers.retriever import Queries, Training
from dnr_jax.retrievers.sequential import SequentialSettings
from dnr_jax.retrievers.two_tower import sampled_softmax

# The package's names are the functions of these modules.
cascade, fs_ltr, rankflow, sequential_ = (
    importlib.import_module(f"dnr_jax.retrievers.{name}")
    for name in ("cascade", "fs_ltr", "rankflow", "sequential")
)
ITEMS, ROUND = 30, 16
SMALL = {"width": 8, "batch_size": 64, "learning_rate": 3e-2, "patience": 0}


@pytest.fixture(scope="module")
def cycle():
    """Lists of users who walk round the items 0, 1, ..., 29, 0, ... and like them all but some."""
    draw = np.random.default_rng(0)
    start = draw.integers(0, ITEMS, 90)
    item = (start[:, None] + np.arange(ROUND)) % ITEMS
    label = np.ones(item.shape)
    label[::3, 1::5] = 0
    user = np.repeat(np.arange(len(start)), ROUND)
    return lists_.build(interactions(user, item.ravel(), label.ravel()), slate=2, history=6)


@pytest.fixture(scope="module")
def training(cycle):
    queries = Queries(cycle.user, cycle.history, cycle.feedback)
    train, valid = (lists_.events(cycle, split) for split in (TRAIN, VALID))
    return Training(train, valid, queries, cycle.catalogue)


def softplus(x):
    return np.log1p(np.exp(x))


def sigma(x):
    return 1 / (1 + np.exp(-x))


def test_sampled_softmax_is_that_of_corrected_scores_over_the_batch():
    draw = np.random.default_rng(1)
    logits, log_q = draw.normal(size=(5, 5)), np.log(draw.dirichlet(np.ones(5)))
    real = np.array([1.0, 1, 1, 1, 0])
    found = sampled_softmax(jnp.asarray(logits, jnp.float32), jnp.asarray(log_q), jnp.asarray(real))
    for i in range(4):
        exponents = np.exp(logits[i] - log_q)
        expected = -np.log(exponents[i] / exponents[:4].sum())
        np.testing.assert_allclose(found[i], expected, rtol=1e-5)
    assert found[4] == 0


def test_log_q_makes_the_softmax_of_a_batch_aim_at_the_true_shares():
    """Without the correction the minimum over many batches would be uniform, not p."""
    p = np.array([0.6, 0.3, 0.1])
    items = jnp.asarray(np.random.default_rng(2).choice(3, (400, 64), p=p))

    def loss(scores):
        def one(batch):
            logits = jnp.broadcast_to(scores[batch], (64, 64))
            return sampled_softmax(logits, jnp.log(jnp.asarray(p))[batch], jnp.ones(64))

        return jax.vmap(one)(items).mean()

    gradient = jax.grad(loss)(jnp.log(jnp.asarray(p, jnp.float32)))
    assert np.abs(gradient).max() < 0.02
    assert np.abs(jax.grad(loss)(jnp.zeros(3))).max() > 0.2


def test_windows_predict_every_positive_but_a_users_first_once():
    user = np.array([2, 2, 2, 2, 2, 3, 4, 4], np.int32)
    item = np.array([5, 6, 7, 8, 9, 5, 6, 7], np.int32)
    label = np.array([1, 1, 0, 1, 1, 1, 1, 1], np.float32)
    found = sequential_.windows(Events(user, item, label, user), 2)
    assert found.tolist() == [[6, 8, 9], [0, 5, 6], [0, 6, 7]]
    with pytest.raises(ValueError, match="no user has two positives"):
        sequential_.windows(Events(user[5:6], item[5:6], label[5:6], user[5:6]), 2)


def test_sequential_losses_equal_their_formulas():
    logits = np.random.default_rng(3).normal(size=(4, 5)).astype(np.float32)
    target = np.array([2, 4, 3, 2])
    found = sequential_.softmax(jnp.asarray(logits), jnp.asarray(target), jax.random.key(0))
    known = np.exp(logits[:, KNOWN:])
    own = known[np.arange(4), target - KNOWN]
    np.testing.assert_allclose(found, -np.log(own / known.sum(1)), rtol=1e-5)
    found = sequential_.bce(jnp.asarray(logits), jnp.asarray(target), jax.random.key(0))
    for row, value in enumerate(found):
        up = softplus(-logits[row, target[row]])
        others = [up + softplus(logits[row, j]) for j in range(KNOWN, 5) if j != target[row]]
        assert np.isclose(value, others, rtol=1e-5).any()


@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_a_sequential_retriever_goes_on_from_the_state_of_the_request(cycle, training, loss):
    knobs = SMALL | {"layers": 1, "heads": 1, "dropout": 0.0, "loss": loss, "epochs": 25}
    fitted = build("sequential", **knobs).fit(jax.random.key(0), training, progress=False)
    rows = np.flatnonzero((cycle.history > 0).all(1) & (cycle.feedback[:, -1] == 3))
    asked = Queries(*(column[rows] for column in training.queries))
    best = fitted.score(asked)[:, KNOWN:].argmax(1) + KNOWN
    assert (best == cycle.items[rows, 0]).mean() > 0.9  # each request of a user, not his last
    empty = Queries(asked.user[:1], 0 * asked.history[:1], 0 * asked.feedback[:1])
    assert np.isfinite(fitted.score(empty)).all()


def test_a_state_does_not_know_what_comes_later(training):
    settings = SequentialSettings(width=8, layers=2, heads=2)
    params = sequential_._init(jax.random.key(0), settings, ITEMS + KNOWN, 6)
    items = jnp.asarray([[0, 3, 4, 5, 6, 7], [0, 3, 4, 5, 9, 2]])
    options = {"drop": lambda x: x, "last_only": False}
    one, other = sequential_._states(settings, params, items, **options)
    np.testing.assert_allclose(one[1:4], other[1:4], atol=1e-6)
    assert np.abs(one[4:] - other[4:]).max() > 1e-2


def test_two_towers_read_the_history_and_the_feedback(cycle, training):
    knobs = SMALL | {"hidden": 16, "epochs": 20, "dropout": 0.0}
    fitted = build("two_tower", **knobs).fit(jax.random.key(0), training, progress=False)
    rows = np.flatnonzero((cycle.history > 0).all(1))
    asked = Queries(*(column[rows] for column in training.queries))
    scores = fitted.score(asked)[:, KNOWN:]
    above = (scores > scores[np.arange(len(rows)), cycle.items[rows, 0] - KNOWN, None]).sum(1)
    # The mean of six items of the round tells where the user is, if not in which order he came.
    assert (above < 10).mean() > 0.9
    other = asked._replace(feedback=np.where(asked.feedback > 0, 2, 0).astype(np.int32))
    assert np.abs(fitted.score(other) - fitted.score(asked)).max() > 1e-3


def outcome(draw, warm=True):
    label = np.zeros((3, 8), np.float32)
    label[:, :3] = draw.integers(0, 2, (3, 3))
    exposed, where = np.arange(8) < np.full((3, 1), 3), np.ones((3, 8), bool)
    where[1, 5] = False
    return Outcome(label, exposed, where, jnp.asarray(warm))


def test_the_tutors_loss_equals_its_formula_and_has_no_gradient_for_the_tutor():
    draw = np.random.default_rng(4)
    s1, s2 = draw.normal(size=(2, 3, 8)).astype(np.float32)
    where = np.ones((3, 8), bool)
    where[1, 2:4] = False

    def found(s1, s2):
        return rankflow.tutoring(s1, s2, where, alpha=0.3, shown=2)

    for row, value in enumerate(found(s1, s2)):
        a, b = s1[row, where[row]], s2[row, where[row]]
        order = np.argsort(-b)
        apart = a[order[:2]].mean() - a[order[2:]].mean()
        squares = ((sigma(a) - sigma(b)) ** 2).mean()
        np.testing.assert_allclose(value, -0.3 * np.log(sigma(apart)) + 0.7 * squares, rtol=1e-5)
    constant = rankflow.tutoring(0 * s1, s2, where, alpha=1.0, shown=2)
    np.testing.assert_allclose(constant, np.log(2), rtol=1e-5)
    assert (found(s2, s2) < found(-s2, s2)).all()
    gradients = jax.grad(lambda *s: found(*s).sum(), (0, 1))(jnp.asarray(s1), jnp.asarray(s2))
    assert np.abs(gradients[0]).max() > 0
    assert np.abs(gradients[1]).max() == 0


def test_rankflow_trains_its_reranker_on_what_the_retriever_hands_on():
    draw, settings = np.random.default_rng(5), RankFlowSettings(passed=4, shown=2, tutor=0.0)
    s1, s2 = draw.normal(size=(2, 3, 8)).astype(np.float32)
    for warm in (False, True):
        case = outcome(draw, warm)
        total = lambda s2: rankflow.loss(settings, s1, s2, case).sum()  # noqa: E731, B023
        reached = np.asarray(jax.grad(total)(jnp.asarray(s2))) != 0
        for row in range(3):
            order = [i for i in np.argsort(-s1[row]) if case.where[row, i]]
            assert set(np.flatnonzero(reached[row])) == set(order[:4] if warm else order)
        own = [softplus(s) - case.label * s for s in (s1, s2)]
        means = [
            np.average(v, axis=1, weights=w)
            for v, w in zip(own, (case.where, reached), strict=True)
        ]
        np.testing.assert_allclose(rankflow.loss(settings, s1, s2, case), sum(means), rtol=1e-5)


def test_the_ladder_of_outcomes_and_its_pairs():
    draw = np.random.default_rng(6)
    s1, s2 = draw.normal(size=(2, 3, 8)).astype(np.float32)
    case = outcome(draw)
    level = np.asarray(fs_ltr.levels(jnp.asarray(s2), case, 2))
    for row in range(3):
        unexposed = [i for i in np.argsort(-s2[row]) if i > 2 and case.where[row, i]]
        expected = [3 if z else 2 for z in case.label[row, :3]] + [0] * 5
        for i in unexposed[:2]:
            expected[i] = 1
        assert level[row].tolist() == expected
    found = fs_ltr.pairwise(jnp.asarray(s1), jnp.asarray(level), jnp.asarray(case.where))
    for row in range(3):
        real = np.flatnonzero(case.where[row])
        pairs = [(i, j) for i in real for j in real if level[row, i] > level[row, j]]
        each = [softplus(s1[row, j] - s1[row, i]) for i, j in pairs]
        np.testing.assert_allclose(found[row], np.mean(each), rtol=1e-5)
    np.testing.assert_allclose(fs_ltr.pairwise(0 * s1, level, case.where), np.log(2), rtol=1e-6)
    assert (fs_ltr.pairwise(s1, 0 * level, case.where) == 0).all()
    cold = np.asarray(fs_ltr.levels(jnp.asarray(s2), case._replace(warm=jnp.asarray(False)), 2))
    assert (cold[:, 3:] == 0).all()
    total = fs_ltr.loss(JointSettings(passed=2), s1, s2, case)
    second = np.average(softplus(s2) - case.label * s2, axis=1, weights=case.where)
    np.testing.assert_allclose(total, found + second, rtol=1e-5)


def test_the_cascades_loss_is_that_of_both_stages_and_of_their_cost():
    draw = np.random.default_rng(7)
    s1, s2 = draw.normal(size=(2, 3, 8)).astype(np.float32)
    case = outcome(draw)
    found = cascade.loss(CascadeSettings(cost=0.4), s1, s2, case)
    p, z = sigma(s1) * sigma(s2), case.label
    each = -z * np.log(p) - (1 - z) * np.log(1 - p) + 0.4 * sigma(s1)
    np.testing.assert_allclose(found, np.average(each, axis=1, weights=case.where), rtol=1e-5)
    sure = jnp.full((3, 8), 60.0)
    wrong = cascade.loss(CascadeSettings(), sure, sure, case)
    assert np.isfinite(np.asarray(wrong)).all()


@pytest.fixture(scope="module")
def by_implicit():
    pytest.importorskip("implicit", reason="the extra `retrievers` is not installed")


def test_item_knn_equals_cosines_by_hand(by_implicit, training):
    met = liked.matrix(training).toarray()
    norm = np.sqrt((met**2).sum(0))
    cosine = met.T @ met / np.maximum(np.outer(norm, norm), 1e-12)
    np.fill_diagonal(cosine, 0)
    asked = Queries(*(column[:40] for column in training.queries))
    all_of_them, few = (
        build("item_knn", neighbours=n).fit(jax.random.key(0), training, progress=False)
        for n in (ITEMS, 3)
    )
    expected = met[asked.user] @ cosine
    np.testing.assert_allclose(all_of_them.score(asked), expected, rtol=1e-5, atol=1e-6)
    nearest = np.sort(cosine, axis=1)[:, -3:].sum(1)  # whichever of equal ones are kept
    np.testing.assert_allclose(few.score(asked).sum(1), met[asked.user] @ nearest, rtol=1e-5)


def test_als_solves_the_normal_equations(by_implicit, training):
    settings = ALSSettings(width=4, iterations=3, regularization=0.5, alpha=7.0)
    p, q = factors(settings, jax.random.key(0), training, progress=False)
    met = liked.matrix(training).toarray()
    for i in range(KNOWN, met.shape[1]):  # the last half sweep solved for the items
        c = np.where(met[:, i] > 0, 7.0, 1.0)
        left = (p * c[:, None]).T @ p + 0.5 * np.eye(4)
        np.testing.assert_allclose(q[i], np.linalg.solve(left, p.T @ (c * met[:, i])), atol=1e-4)


def test_the_extra_is_named_where_the_library_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("item_knn", "als"):
        with pytest.raises(ValueError, match=rf"'{name}' needs .*dnr_jax\[retrievers\]"):
            build(name)


def test_external_scores_are_those_of_the_file(cycle, tmp_path):
    path = tmp_path / "scores.csv"
    lines = ["score,note,user,item"]
    lines += [f"{u - 0.5 * i},x,{u},{i}" for u in range(90) for i in range(ITEMS) if i != 4]
    path.write_text("\n".join([*lines, "1,x,177,3"]) + "\n")
    retriever = build("external", path=str(path))
    stage = cross_fit.fit(retriever, jax.random.key(0), cycle, folds=2, progress=False)
    assert (stage.report["scores"], stage.report["cross_fit"]) == (90 * (ITEMS - 1), 0)
    rows = np.array([7, 0, len(cycle.user) - 1])
    scores = stage.score(cycle.user[rows], rows)
    for row, found in zip(rows, scores, strict=True):
        user = cycle.catalogue.user_ids[cycle.user[row]]
        items = cycle.catalogue.item_ids[KNOWN:]
        expected = np.where(items == 4, -np.inf, user - 0.5 * items)
        np.testing.assert_array_equal(found[KNOWN:], expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "external.path is '.*': it must be a CSV"),
        ("user,item\n1,2\n", "there is no column 'score'"),
        ("user,item,score\n1,2\n", "line 2: 2 fields, but the header has 3"),
        ("user,item,score\n1,x,3\n", "column 'item': .*'x'"),
        ("user,item,score\n1,2,nan\n", "line 2: the score 'nan' is not finite"),
        ("user,item,score\n901,2,1\n", "none of its 1 rows has a user and an item"),
    ],
)
def test_a_wrong_file_of_scores_is_told(cycle, tmp_path, text, message):
    path = tmp_path / "scores.csv"
    if text is not None:
        path.write_text(text)
    retriever = build("external", path=str(path))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        cross_fit.fit(retriever, jax.random.key(0), cycle, folds=0, progress=False)
