"""Retrievers: losses against formulas, quality against brute force, and no leak across folds."""

from __future__ import annotations

import importlib
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax.data import lists as lists_
from dnr_jax.data.interactions import k_core
from dnr_jax.data.lists import TEST, TRAIN, VALID, Events
from dnr_jax.data.movielens import reader, simulator
from dnr_jax.data.movielens.settings import MovieLensSimulation
from dnr_jax.json_files import DamagedError
from dnr_jax.retrievers import RETRIEVERS, build, cross_fit, kept
from dnr_jax.retrievers.epochs import until_best
from dnr_jax.retrievers.matrix_factorization import LOSSES, _examples, _scores, unmet_items
from dnr_jax.retrievers.quality import measure
from dnr_jax.retrievers.retriever import (
    FittedRetriever,
    Queries,
    Retriever,
    RetrieverSettings,
    Training,
    take,
)

KNOBS = {
    "loss": "bpr",
    "width": 8,
    "epochs": 12,
    "batch_size": 512,
    "learning_rate": 2e-2,
    "decay": 0.01,
    "patience": 3,
}


LEARNER = {"width": 8, "epochs": 4, "batch_size": 128, "learning_rate": 3e-2}


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    folder = tmp_path_factory.mktemp("retrievers") / "world"
    simulator.simulate(folder, MovieLensSimulation(users=120, movies=150))
    core = k_core(reader.read(folder, positive_rating=4), core=10)
    return lists_.build(core, slate=6, history=10)


LEARNED = ["matrix_factorization", "bce"]
OF_PAIRS = ["item_knn", "als"]
OF_FEATURES = ["two_tower", "sequential", "rankflow", "fs_ltr", "cascade"]
KNOBS_OF = {
    "matrix_factorization": KNOBS,
    "bce": KNOBS | {"loss": "bce"},
    "als": {"width": 8},
    **{name: LEARNER for name in OF_FEATURES},
    "sequential": LEARNER | {"layers": 1, "heads": 1, "dropout": 0.0},
}


@pytest.fixture(scope="module")
def stage(lists):
    """A retriever by its name, fitted when it is first asked for."""

    @cache
    def of(name):
        retriever = build(name.replace("bce", "matrix_factorization"), **KNOBS_OF.get(name, {}))
        return cross_fit.fit(retriever, jax.random.key(0), lists, folds=0, progress=False)

    return of


@pytest.fixture
def quality(stage):
    """Test quality of a retriever by its name."""
    return lambda name: stage(name).report["test"]


def test_popularity_beats_random(quality):
    assert abs(quality("random")["auc_user"] - 0.5) < 0.06
    assert quality("popularity")["auc_user"] > 0.6


@pytest.mark.parametrize("name", LEARNED)
def test_learning_beats_popularity(name, quality):
    for metric in ("auc_user", "auc_micro", "recall@50"):
        assert quality(name)[metric] > quality("popularity")[metric] + 0.01


@pytest.mark.parametrize("name", OF_PAIRS)
def test_items_met_together_beat_popularity(name, quality):
    assert quality(name)["auc_user"] > quality("popularity")["auc_user"] + 0.01


@pytest.mark.parametrize("name", OF_FEATURES)
def test_features_beat_random(name, quality):
    assert quality(name)["auc_user"] > quality("random")["auc_user"] + 0.06


def test_each_of_the_table_is_tried():
    tried = {*LEARNED, *OF_PAIRS, *OF_FEATURES, "random", "popularity"} - {"bce"}
    assert tried == RETRIEVERS.keys() - {"external"}


@pytest.mark.parametrize("name", sorted(RETRIEVERS.keys() - {"external"}))
def test_a_kept_retriever_scores_as_the_fitted_one(name, stage, lists, tmp_path):
    folder, fitted = tmp_path / "kept", stage(name)
    kept.save(folder, name, KNOBS_OF.get(name, {}), fitted.state)
    again = kept.load(folder, cure="")
    rows = np.flatnonzero(lists.split == TEST)[:40]
    asked = take(Queries(lists.user, lists.history, lists.feedback), rows)
    np.testing.assert_array_equal(again(asked), fitted.score(lists.user[rows], rows))
    nobody = asked._replace(
        user=np.ones_like(asked.user), history=0 * asked.history, feedback=0 * asked.feedback
    )
    strangers = again(nobody)
    assert np.isfinite(strangers).all()
    if name in ("matrix_factorization", "fs_ltr", "rankflow", "cascade"):
        np.testing.assert_allclose(strangers, np.tile(fitted.state["bias"], (len(rows), 1)))


def test_a_damaged_retriever_is_refused(stage, tmp_path):
    folder = tmp_path / "kept"
    kept.save(folder, "popularity", {}, stage("popularity").state)
    with pytest.raises(FileExistsError):
        kept.save(folder, "popularity", {}, stage("popularity").state)
    [file] = folder.glob("*.bin")
    whole = file.read_bytes()
    for torn in (whole[:-4], whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(torn)
        with pytest.raises(DamagedError, match="items"):
            kept.load(folder, cure="train it anew")
    file.unlink()
    with pytest.raises(DamagedError, match="train it anew"):
        kept.load(folder, cure="train it anew")
    with pytest.raises(FileNotFoundError):
        kept.load(tmp_path / "nothing", cure="")


def test_fit_is_deterministic_and_keeps_the_best_epoch(lists):
    retriever = build("matrix_factorization", **KNOBS | {"epochs": 4})
    train, valid = lists_.events(lists, TRAIN), lists_.events(lists, VALID)
    queries = Queries(lists.user, lists.history, lists.feedback)
    training = Training(train, valid, queries, lists.catalogue)
    counts = training.counts
    fits = [retriever.fit(jax.random.key(seed), training, progress=False) for seed in (0, 0, 1)]
    scores = [f.score(queries) for f in fits]
    assert scores[0].shape == (len(lists.user), counts["item_count"])
    assert scores[0].dtype == np.float32
    np.testing.assert_array_equal(scores[0], scores[1])
    assert (scores[0] != scores[2]).any()
    report = fits[0].report
    assert report["auc_valid"] == max(report["auc_valid_by_epoch"])
    found = measure(fits[0].score, queries, train, valid, **counts)
    assert found["auc_user"] == report["auc_valid"]


@pytest.mark.parametrize(("patience", "epochs"), [(0, 9), (2, 4), (5, 7)])
def test_a_fit_stops_after_its_patience_and_without_one_never(patience, epochs):
    qualities = iter([0.1, 0.5, *[0.4] * 7])
    step = lambda epoch, state: (state + 1, jnp.float32(0))  # noqa: E731
    params, report = until_best(step, np.zeros(1), lambda _: next(qualities), 9, patience, False)
    assert len(report["losses"]) == epochs
    assert (report["best_epoch"], report["auc_valid"], params) == (2, 0.5, 2)


def test_losses_and_gradients_equal_their_formulas():
    positive, negative = jnp.array([0.3, -2.0, 4.0]), jnp.array([1.1, 0.5, -1.0])
    sigma = 1 / (1 + np.exp(-(np.asarray(positive) - np.asarray(negative))))
    np.testing.assert_allclose(LOSSES["bpr"](positive, negative), -np.log(sigma), rtol=1e-5)
    up = jax.grad(lambda p, n: LOSSES["bpr"](p, n).sum(), (0, 1))(positive, negative)
    np.testing.assert_allclose(up[0], sigma - 1, rtol=1e-5)
    np.testing.assert_allclose(up[1], 1 - sigma, rtol=1e-5)
    p, n = (1 / (1 + np.exp(-np.asarray(s))) for s in (positive, negative))
    expected = -np.log(p) - np.log(1 - n)
    np.testing.assert_allclose(LOSSES["bce"](positive, negative), expected, rtol=1e-5)


def test_negatives_are_items_that_the_user_did_not_meet():
    draw = np.random.default_rng(0)
    users, items = 6, 21
    met = draw.random((users, items)) < 0.4
    met[:, :2] = False
    user, item = (a.astype(np.int32) for a in np.nonzero(met))
    train = Events(user, item, np.ones(len(user), np.float32), user)
    examples = _examples(train, users, items)
    asked = jnp.asarray(np.repeat(np.arange(users), 2000))
    drawn = np.asarray(unmet_items(jax.random.key(0), examples, asked))
    assert drawn.min() >= 2
    assert drawn.max() == items - 1
    hits = met[np.asarray(asked), drawn]
    assert hits.mean() < 0.4**8 * 10  # only after as many tries as are made
    for u in range(users):
        counted = np.bincount(drawn[np.asarray(asked) == u], minlength=items)
        assert (counted[2:][~met[u, 2:]] > 0).all()


def test_scores_are_products_of_full_float32_on_every_device():
    """Where products round to fewer digits by default, candidates would come in another order."""
    params = {"users": jnp.ones((3, 4)), "items": jnp.ones((5, 4)), "bias": jnp.ones(5)}
    lowered = _scores.trace(params, jnp.arange(2)).lower(lowering_platforms=("tpu",)).as_text()
    assert "precision = [HIGHEST, HIGHEST]" in lowered


def test_measure_equals_brute_force():
    draw = np.random.default_rng(3)
    users, items = 300, 70  # more users than one chunk
    scores = draw.integers(0, 12, (users, items)).astype(np.float32)  # with ties
    kind = draw.choice(3, (users, items), p=[0.8, 0.15, 0.05])
    kind[:, :2] = 0

    def made(which):
        user, item = np.nonzero(kind == which)
        label = (draw.random(len(user)) < 0.7).astype(np.float32)
        return Events(user.astype(np.int32), item.astype(np.int32), label, user)

    seen, target = made(1), made(2)
    every = np.arange(users, dtype=np.int32)
    asked = Queries(every, np.zeros((users, 1), np.int32), np.zeros((users, 1), np.int32))
    sizes = {"user_count": users, "item_count": items}
    found = measure(lambda q: scores[q.user], asked, seen, target, **sizes)
    auc, hits = [], []
    for u in range(users):
        positives = target.item[(target.user == u) & (target.label > 0.5)]
        closed = set(seen.item[seen.user == u].tolist()) | set(positives.tolist())
        rivals = scores[u, [i for i in range(2, items) if i not in closed]]
        own = scores[u, positives][:, None]
        below = (own > rivals).mean(1) + 0.5 * (own == rivals).mean(1)
        if len(positives):
            auc.append(below)
            hits.append(((1 - below) * len(rivals) < 50).mean())
    assert found["users"] == len(auc)
    assert found["auc_user"] == pytest.approx(np.mean([a.mean() for a in auc]))
    assert found["auc_micro"] == pytest.approx(np.concatenate(auc).mean())
    assert found["recall@50"] == pytest.approx(np.mean(hits))


def test_measure_without_positives_is_undefined():
    one = Events(*(np.zeros(1, np.int32) for _ in range(4)))
    asked = Queries(*(np.zeros((3, 1), np.int32) for _ in range(3)))
    found = measure(
        lambda q: np.zeros((len(q.user), 5)), asked, one, one, user_count=3, item_count=5
    )
    assert found["users"] == 0
    assert np.isnan(found["auc_user"])


class Spy:
    """A retriever whose score of (user, item) is how often it saw the pair, plus 10 per fit."""

    def __init__(self):
        self.fits = []

    def fit(self, key, training, *, progress):
        seen = np.zeros(tuple(training.counts.values()), np.float32)
        np.add.at(seen, (training.train.user, training.train.item), 1)
        number = len(self.fits)
        self.fits.append(training)
        return FittedRetriever(lambda queries: seen[queries.user] + 10 * number, {})


@pytest.mark.parametrize("folds", [2, 5])
def test_cross_fit_scores_training_lists_by_a_retriever_that_did_not_see_them(lists, folds):
    spy = Spy()
    stage = cross_fit.fit(Retriever(spy.fit), jax.random.key(0), lists, folds=folds, progress=False)
    rows = np.arange(len(lists.user))
    scores = stage.score(lists.user, rows)
    own = scores[rows[:, None], lists.items]
    train = lists.split == TRAIN
    assert (own[train] % 10 == 0).all()
    assert (own[~train] == 0).all()  # the retriever of all training lists, which did not see them
    assert len(spy.fits) == folds + 1
    shares = np.bincount(cross_fit.fold_of(rows[train], folds), minlength=folds) / train.sum()
    np.testing.assert_allclose(shares, 1 / folds, atol=0.05)
    test = lists_.events(lists, TEST, VALID)
    held = set(zip(test.user.tolist(), test.item.tolist(), strict=True))
    for fitted_on in (fit.train for fit in spy.fits):
        assert not held & set(zip(fitted_on.user.tolist(), fitted_on.item.tolist(), strict=True))
    # A list's retriever has seen the user's training lists of other folds.
    assert (scores[train] % 10 == 1).any(1).mean() > 0.9


def test_a_fold_stands_in_no_history_of_the_retriever_that_is_to_score_it(lists):
    spy, folds = Spy(), 3
    cross_fit.fit(Retriever(spy.fit), jax.random.key(0), lists, folds=folds, progress=False)
    whole, *parts = (fit.queries for fit in spy.fits)
    np.testing.assert_array_equal(whole.history, lists.history)
    length = lists.history.shape[1]
    for number, part in enumerate(parts):
        hidden = 0
        for row in range(len(lists.user)):
            before = np.flatnonzero(lists.user[:row] == lists.user[row])
            # Latest first; what the fold hides leaves no gap.
            events = [
                (int(item), int(2 + label), r)
                for r in before[::-1]
                for item, label in zip(lists.items[r][::-1], lists.labels[r][::-1], strict=True)
            ][:length]
            own = [cross_fit.fold_of(np.array([r]), folds)[0] == number for *_, r in events]
            own = [o and lists.split[r] == TRAIN for o, (*_, r) in zip(own, events, strict=True)]
            left = [e for e, o in zip(events, own, strict=True) if not o]
            hidden += sum(own)
            expected = np.zeros((2, length), int)
            for place, (item, liked, _) in enumerate(left):
                expected[:, length - 1 - place] = item, liked
            np.testing.assert_array_equal(part.history[row], expected[0])
            np.testing.assert_array_equal(part.feedback[row], expected[1])
        assert hidden > len(lists.user)
    rows = np.flatnonzero(lists.split == TEST)
    np.testing.assert_array_equal(whole.history[rows], lists.history[rows])


def test_scores_that_come_from_elsewhere_are_not_cross_fitted(lists):
    spy = Spy()
    retriever = Retriever(spy.fit, learns=False)
    stage = cross_fit.fit(retriever, jax.random.key(0), lists, folds=2, progress=False)
    assert (len(spy.fits), stage.report["cross_fit"]) == (1, 0)


def test_without_folds_one_retriever_scores_everything(lists):
    spy = Spy()
    stage = cross_fit.fit(Retriever(spy.fit), jax.random.key(0), lists, folds=0, progress=False)
    rows = np.flatnonzero(lists.split == TRAIN)
    own = stage.score(lists.user[rows], rows)[np.arange(len(rows))[:, None], lists.items[rows]]
    assert (own == 1).all()
    assert len(spy.fits) == 1


def test_bad_requests_are_named(lists):
    with pytest.raises(ValueError, match=r"no retriever 'mf'.*Known: .*matrix_fact"):
        build("mf")
    with pytest.raises(ValueError, match="popularity: there is no knob 'width'"):
        build("popularity", width=3)
    wrong = [("loss", "hinge"), ("width", 0), ("epochs", 0), ("batch_size", 0), ("patience", -1)]
    wrong += [("learning_rate", 0.0), ("learning_rate", 11.0), ("decay", np.inf)]
    for knob, value in wrong:
        with pytest.raises(ValueError, match=f"matrix_factorization.{knob} is {value!r}: it must"):
            build("matrix_factorization", **KNOBS | {knob: value})
    with pytest.raises(ValueError, match="cross_fit is 1: it must be 0"):
        RetrieverSettings(cross_fit=1)
    with pytest.raises(ValueError, match="score is 'maxmin': it must be one of"):
        RetrieverSettings(score="maxmin")
    with pytest.raises(ValueError, match="folds contains all training lists"):
        cross_fit.fit(build("random"), jax.random.key(0), lists, folds=1, progress=False)
    for zero, message in ((TRAIN, "training lists hold no"), (VALID, "validation lists hold no")):
        labels = np.where((lists.split == zero)[:, None], 0, lists.labels)
        with pytest.raises(ValueError, match=message):
            cross_fit.fit(
                build("matrix_factorization", **KNOBS),
                jax.random.key(0),
                lists._replace(labels=labels),
                folds=0,
                progress=False,
            )


def test_a_diverging_fit_stops_with_a_reason(lists, monkeypatch):
    home = importlib.import_module("dnr_jax.retrievers.matrix_factorization")
    monkeypatch.setattr(home, "INITIAL_SCALE", 1e30)
    retriever = build("matrix_factorization", **KNOBS | {"epochs": 2})
    with pytest.raises(ValueError, match=r"lower its config\.retrievers\.NAME\.learning_rate"):
        cross_fit.fit(retriever, jax.random.key(0), lists, folds=0, progress=False)
