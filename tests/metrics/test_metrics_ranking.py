"""Ranking metrics against formulas, brute force over tie orders, and three other libraries."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dnr_jax import metrics
from dnr_jax.metrics import pooled, ranking

K = 6
evaluate = partial(jax.jit, static_argnames="k")(metrics.evaluate_batch)

GOLDEN_LABELS = np.float32([[1, 0, 1, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
GOLDEN_LOGITS = np.float32(
    [[0.2, 0.9, 0.8, 0.1, 0.3], [0.5, 0.4, 0.3, 0.2, 0.1], [0.95, 0.75, 0.55, 0.35, 0.15]]
)


def values(logits, labels, where=None, k=K):
    """Evaluate to `{name: float64 [B]}` with NaN where invalid."""
    where = np.ones(np.shape(logits), bool) if where is None else where
    results = evaluate(np.float32(logits), np.float32(labels), where, k=k)
    return {
        n: np.where(valid, np.asarray(value, np.float64), np.nan)
        for n, (value, valid) in results.items()
    }


def of_order(order, labels, k):
    """Metrics of one strict order, straight from their definitions."""
    hits = [labels[i] > 0.5 for i in order]
    positives, top = sum(hits), sum(hits[:k])
    dcg = sum(h / np.log2(r + 2) for r, h in enumerate(hits[:k]))
    ideal = sum(1 / np.log2(r + 2) for r in range(min(k, positives)))
    precisions = sum(sum(hits[: r + 1]) / (r + 1) for r in range(min(k, len(hits))) if hits[r])
    return {
        f"h@{k}": top / k,
        f"hit_any@{k}": float(top > 0),
        f"recall@{k}": top / positives,
        f"n@{k}": dcg / ideal,
        f"m@{k}": precisions / min(k, positives),
        f"map_total@{k}": precisions / positives,
        f"f1@{k}": 2 * top / (k + positives),
    }


def brute_force(logits, labels, k):
    """Average over all orders that agree with the logits."""
    orders = [
        order
        for order in itertools.permutations(range(len(logits)))
        if all(logits[a] >= logits[b] for a, b in itertools.pairwise(order))
    ]
    results = [of_order(order, labels, k) for order in orders]
    return {name: np.mean([r[name] for r in results]) for name in results[0]}


@pytest.fixture(scope="module")
def random_lists():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(64, 20)).astype(np.float32)
    labels = (rng.random((64, 20)) < 0.2).astype(np.float32)
    labels[:, 0], labels[:, 1] = 1, 0  # a positive and a negative in each list
    return logits, labels


def golden(k=3):
    """Mean over all requests, those without a positive counted as 0 (the group's convention)."""
    found = {n: np.nansum(v) / 3 for n, v in values(GOLDEN_LOGITS, GOLDEN_LABELS, k=k).items()}
    found["f1_of_means"] = pooled.f1_of_means(found["h@3"], found["recall@3"])
    where = np.ones_like(GOLDEN_LABELS, bool)
    found["auc_micro"] = pooled.auc_micro(GOLDEN_LOGITS, GOLDEN_LABELS, where)
    return found


GOLDEN = {
    "h@3": 2 / 9,
    "hit_any@3": 2 / 3,
    "n@3": (1 / np.log2(3) / (1 + 1 / np.log2(3)) + 1 / np.log2(3)) / 3,
    "map_total@3": 0.25,
    "recall@3": 0.5,
    "f1_of_means": 4 / 13,
    "f1@3": 0.3,
    "auc_micro": 0.569444,
    "auc": 0.625 * 2 / 3,
}


def test_golden_vector():
    found = golden()
    for name, expected in GOLDEN.items():
        assert found[name] == pytest.approx(expected, abs=1e-6), name
    assert GOLDEN["n@3"] == pytest.approx(0.339261, abs=1e-6)
    assert np.nanmean(values(GOLDEN_LOGITS, GOLDEN_LABELS, k=3)["auc"]) == pytest.approx(0.625)


@pytest.mark.parametrize(
    "discount",
    [lambda r: 1 / np.log2(r + 2), lambda r: 1 / np.log2(np.maximum(r, 2)), lambda r: 1 / r],
)
def test_a_wrong_discount_is_noticed(monkeypatch, discount):
    def mutant(length, k):
        r = np.arange(1, length + 1)
        gains = np.where(r <= k, discount(r), 0)
        return np.concatenate([[0], np.cumsum(gains)]).astype(np.float32)

    monkeypatch.setattr(ranking, "cumulative_discount", mutant)
    value, _ = jax.jit(metrics.build("n", k=3))(
        GOLDEN_LOGITS, GOLDEN_LABELS, np.ones_like(GOLDEN_LABELS, bool)
    )
    assert abs(float(np.sum(value)) / 3 - GOLDEN["n@3"]) > 1e-3


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_expected_value_over_ties_is_the_mean_over_orders(data):
    logits = data.draw(st.lists(st.integers(0, 2), min_size=6, max_size=6))
    labels = data.draw(st.lists(st.integers(0, 1), min_size=6, max_size=6).filter(any))
    k = data.draw(st.sampled_from([2, 5]))
    found = values([logits], [labels], k=k)
    for name, expected in brute_force(logits, labels, k).items():
        assert found[name][0] == pytest.approx(expected, abs=2e-6), name


def test_constant_scorer_scores_at_chance_wherever_the_positive_is_stored():
    labels = np.eye(10, dtype=np.float32)
    found = values(np.zeros((10, 10)), labels)
    discount = np.mean([1 / np.log2(r + 1) if r <= K else 0 for r in range(1, 11)])
    expected = {f"h@{K}": 0.1, f"hit_any@{K}": 0.6, f"n@{K}": discount, "auc": 0.5, "kendall": 0.0}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=name)


def test_agreement_with_rax(random_lists):
    import rax

    logits, labels = random_lists
    found = values(logits, labels)
    pairs = {
        # rax divides average precision by all positives and precision by topn
        f"n@{K}": rax.ndcg_metric,
        f"map_total@{K}": rax.ap_metric,
        f"h@{K}": rax.precision_metric,
        f"recall@{K}": rax.recall_metric,
    }
    theirs = jax.jit(
        lambda s, z: {n: metric(s, z, topn=K, reduce_fn=None) for n, metric in pairs.items()}
    )(logits, labels)
    for name, expected in theirs.items():
        np.testing.assert_allclose(found[name], expected, atol=1e-6, err_msg=name)


def test_agreement_with_scikit_learn_also_on_ties(random_lists):
    from sklearn.metrics import ndcg_score, roc_auc_score

    logits, labels = random_lists
    for scores in (logits, np.round(logits)):
        found = values(scores, labels)
        for row in range(len(labels)):
            ndcg = ndcg_score(labels[row : row + 1], scores[row : row + 1], k=K)
            assert found[f"n@{K}"][row] == pytest.approx(ndcg, abs=1e-6)
            auc = roc_auc_score(labels[row], scores[row])
            assert found["auc"][row] == pytest.approx(auc, abs=1e-6)
        micro = pooled.auc_micro(scores, labels, np.ones_like(labels, bool))
        assert micro == pytest.approx(roc_auc_score(labels.ravel(), scores.ravel()), abs=1e-9)


@pytest.fixture
def ranx(monkeypatch):
    """Import ranx as plain Python: compiling its functions takes a minute."""
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    import ranx

    return ranx


@pytest.mark.filterwarnings("ignore:unsafe cast")  # numba, if something has imported it before
def test_agreement_with_ranx(random_lists, ranx):
    logits, labels = random_lists
    names = [f"{i:02d}" for i in range(logits.shape[1])]
    truth = {
        str(r): {n: 1 for n, z in zip(names, row, strict=True) if z} for r, row in enumerate(labels)
    }
    run = {
        str(r): {n: float(s) for n, s in zip(names, row, strict=True)}
        for r, row in enumerate(logits)
    }
    known = {
        f"ndcg@{K}": f"n@{K}",
        f"map@{K}": f"map_total@{K}",
        f"precision@{K}": f"h@{K}",
        f"recall@{K}": f"recall@{K}",
        f"hit_rate@{K}": f"hit_any@{K}",
        f"f1@{K}": f"f1@{K}",
    }
    theirs = ranx.evaluate(ranx.Qrels(truth), ranx.Run(run), list(known))
    found = values(logits, labels)
    for name, ours in known.items():
        assert found[ours].mean() == pytest.approx(theirs[name], abs=1e-6), name


def test_correlations_agree_with_scipy(random_lists):
    logits, _ = random_lists
    rng = np.random.default_rng(1)
    labels = np.round(rng.random(logits.shape) * 4) / 4
    where = rng.random(logits.shape) < 0.8
    scores = np.round(logits, 1)
    found = values(scores, labels, where)
    for row, real in enumerate(where):
        a, b = scores[row, real], labels[row, real]
        rho, tau = stats.spearmanr(a, b).statistic, stats.kendalltau(a, b).statistic
        assert found["spearman"][row] == pytest.approx(rho, abs=2e-6)
        assert found["kendall"][row] == pytest.approx(tau, abs=2e-6)


def test_constant_logits_do_not_change_who_counts_in_a_correlation():
    value, valid = jax.jit(metrics.build("spearman", k=1))(
        jnp.zeros((2, 4)), jnp.asarray([[0, 1, 0, 0.0], [0, 0, 0, 0]]), jnp.ones((2, 4), bool)
    )
    assert valid.tolist() == [True, False]
    assert value.tolist() == [0, 0]


def test_requests_without_a_positive_are_not_valid():
    labels = np.float32([[0, 0, 0], [1, 1, 1], [0, 1, 0]])
    results = evaluate(np.float32(np.eye(3)), labels, np.ones((3, 3), bool), k=2)
    for name, (value, valid) in results.items():
        whole = name in metrics.WHOLE
        assert valid.tolist() == [False, not whole, True], name
        assert value[0] == 0
        assert value.dtype == jnp.float32


@given(st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_padding_and_its_content_never_matter(seed):
    rng = np.random.default_rng(seed)
    logits = np.round(rng.normal(size=(3, 8)), 1).astype(np.float32)
    labels = (rng.random((3, 8)) < 0.4).astype(np.float32)
    where = rng.permuted(np.tile(np.arange(8) < 5, (3, 1)), axis=1)
    junk = rng.choice(np.float32([np.nan, np.inf, -np.inf, 1e30, 0]), size=(3, 8))
    clean = values(np.where(where, logits, -1e9), np.where(where, labels, 0), where)
    dirty = values(np.where(where, logits, junk), np.where(where, labels, 1), where)
    for name in clean:
        np.testing.assert_array_equal(clean[name], dirty[name], err_msg=name)
    short = values(logits[where].reshape(3, 5), labels[where].reshape(3, 5))
    for name in short:
        np.testing.assert_allclose(short[name], clean[name], atol=1e-6, err_msg=name)


@given(st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_order_of_storage_and_monotone_maps_never_matter(seed):
    rng = np.random.default_rng(seed)
    logits = np.round(rng.normal(size=(3, 8)), 1)
    labels = (rng.random((3, 8)) < 0.4).astype(np.float32)
    order = rng.permutation(8)
    before, after = values(logits, labels), values(logits[:, order] * 3 + 7, labels[:, order])
    for name in before:
        np.testing.assert_allclose(before[name], after[name], atol=2e-6, err_msg=name)


def test_nan_ranks_last():
    labels = np.float32([[1, 0, 0]])
    found = values([[np.nan, -5.0, -1e9]], labels, k=2)
    assert found["n@2"] == 0
    assert found["auc"] == 0


def test_a_label_is_positive_above_one_half():
    assert values([[2, 1, 0]], [[0.5, 0.51, 1.0]], k=2)["h@2"] == 0.5


def test_lists_shorter_than_k_and_empty_ones():
    found = values([[1.0, 2.0], [1.0, 2.0]], [[1, 0], [1, 0]], np.array([[1, 1], [0, 0]], bool))
    assert found[f"h@{K}"][0] == pytest.approx(1 / K)
    assert found[f"n@{K}"][0] == pytest.approx(1 / np.log2(3))
    assert all(np.isnan(v[1]) for v in found.values())


def test_every_metric_builds_alone_and_agrees_with_the_fused_pass(random_lists):
    logits, labels = random_lists
    where = np.ones_like(labels, bool)
    fused = evaluate(logits, labels, where, k=K)
    assert set(fused) == set(metrics.names(K))
    for name, full in zip(metrics.METRICS, metrics.names(K), strict=True):
        value, valid = jax.eval_shape(metrics.build(name, k=K), logits, labels, where)
        assert (value.dtype, valid.dtype) == (jnp.float32, bool)
        assert value.shape == valid.shape == (64,), full
    for name, full in (("m", f"m@{K}"), ("kendall", "kendall")):
        value, valid = jax.jit(metrics.build(name, k=K))(logits, labels, where)
        np.testing.assert_allclose(value, fused[full][0], atol=1e-6)
        np.testing.assert_array_equal(valid, fused[full][1])


def test_arrays_of_different_shape_are_refused():
    with pytest.raises(AssertionError):
        metrics.evaluate_batch(jnp.ones((2, 3)), jnp.ones((2, 1)), jnp.ones((2, 3), bool), k=2)


def test_unknown_metric_and_cutoff_are_named():
    with pytest.raises(ValueError, match=r"'ndgc'.*hit_any.*auc"):
        metrics.build("ndgc", k=6)
    with pytest.raises(ValueError, match="k is 0"):
        metrics.build("n", k=0)


def test_end_to_end_ideal_counts_positives_outside_the_pool():
    ndcg, pool, total = np.array([1.0, np.nan, np.nan, 0.5]), [1, 0, 0, 1], [2, 3, 0, 0]
    found = pooled.ndcg_end_to_end(ndcg, np.array(pool), np.array(total), k=6)
    np.testing.assert_allclose(found, [1 / (1 + 1 / np.log2(3)), 0, np.nan, 0.5], atol=1e-7)


def test_pooled_metrics_without_anything_to_count():
    assert np.isnan(pooled.auc_micro(np.ones((1, 2)), np.ones((1, 2)), np.ones((1, 2), bool)))
    assert pooled.f1_of_means(0.0, 0.0) == 0
