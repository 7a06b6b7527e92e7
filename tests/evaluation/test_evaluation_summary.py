"""The summary of a split: keys, exclusions, and that chunks and padding do not show."""

from functools import partial

import jax
import numpy as np
import pytest

from dnr_jax import evaluation, metrics
from dnr_jax.evaluation import summary

KEYS = {
    *("h@6", "hit_any@6", "recall@6", "n@6", "n@6_end_to_end", "m@6", "map_total@6", "f1@6"),
    *("f1_of_means@6", "auc", "auc_micro", "diversity@6", "coverage@6", "long_tail@6"),
    *("popularity@6", "ece", "brier", "spearman", "kendall", "spearman_truth", "kendall_truth"),
}


def run(prepared, logits, name="test", k=6):
    return evaluation.evaluate(
        logits,
        prepared.splits[name],
        k=k,
        item_vectors=prepared.item_vectors,
        item_popularity=prepared.item_popularity,
    )


@pytest.fixture(scope="module")
def retriever(prepared):
    return run(prepared, prepared.splits["test"].batch.scores)


def test_all_metrics_are_there_as_finite_python_floats(retriever):
    assert set(retriever.metrics) == KEYS
    assert all(type(v) is float and np.isfinite(v) for v in retriever.metrics.values())


def test_requests_without_a_positive_are_excluded_and_counted(prepared, retriever):
    empty = prepared.splits["test"].batch.labels.sum(axis=1) == 0
    assert (retriever.requests, retriever.excluded) == (600, 60)
    for name in metrics.names(6):
        values = retriever.per_request[name]
        assert values.shape == (600,)
        assert values.dtype == np.float32
        np.testing.assert_array_equal(np.isnan(values), empty, err_msg=name)
        assert retriever.metrics[name] == pytest.approx(values[~empty].mean(), abs=1e-6)


def test_end_to_end_counts_requests_whose_positives_lie_outside_the_pool(prepared, retriever):
    values = retriever.per_request["n@6_end_to_end"]
    empty = prepared.splits["test"].batch.labels.sum(axis=1) == 0
    assert (values[empty] == 0).all()
    assert (values[~empty] <= retriever.per_request["n@6"][~empty]).all()
    assert retriever.metrics["n@6_end_to_end"] < retriever.metrics["n@6"]


def test_known_truth_is_compared_and_unknown_truth_left_out(prepared, retriever, spoiled):
    assert retriever.metrics["spearman_truth"] == pytest.approx(1.0, abs=1e-6)
    unknown = np.full((600, 20), np.nan, np.float32)
    found = run(spoiled(prepared, "test", truth=unknown), prepared.splits["test"].batch.scores)
    assert set(found.metrics) == KEYS - {"spearman_truth", "kendall_truth"}


def test_chunks_do_not_show(prepared, retriever, monkeypatch):
    monkeypatch.setattr(summary, "CHUNK", 77)
    found = run(prepared, prepared.splits["test"].batch.scores)
    for name, value in found.metrics.items():
        assert value == pytest.approx(retriever.metrics[name], abs=1e-6), name


def test_unjudged_candidates_are_shown_but_not_scored(prepared, spoiled):
    batch = prepared.splits["test"].batch
    weights = np.where(batch.labels > 0, batch.weights, 0)
    found = run(spoiled(prepared, "test", weights=weights), batch.scores)
    assert found.metrics["n@6"] == pytest.approx(1.0)
    assert np.isnan(found.metrics["auc"])
    assert found.metrics["coverage@6"] == run(prepared, batch.scores).metrics["coverage@6"]


def test_a_perfect_order_reaches_the_ceiling(prepared):
    labels = prepared.splits["test"].batch.labels
    found = run(prepared, labels).metrics
    for name in ("n@6", "m@6", "recall@6", "hit_any@6", "auc", "kendall"):
        assert found[name] == pytest.approx(1.0, abs=1e-6), name
    assert found["h@6"] == pytest.approx(0.5, abs=1e-6)
    assert found["f1_of_means@6"] == pytest.approx(2 / 3, abs=1e-6)


def test_mean_ndcg_is_the_summary_number(prepared, retriever):
    batch = prepared.splits["test"].batch
    ndcg = partial(jax.jit, static_argnums=3)(evaluation.mean_ndcg)
    value = ndcg(batch.scores, batch.labels, batch.request.where, 6)
    assert float(value) == pytest.approx(retriever.metrics["n@6"], abs=1e-6)
    assert float(ndcg(batch.scores, batch.labels * 0, batch.request.where, 6)) == 0


def test_items_without_vectors_have_unknown_diversity(prepared):
    without = prepared._replace(item_vectors=prepared.item_vectors[:, :0])
    found = run(without, prepared.splits["test"].batch.scores)
    assert np.isnan(found.metrics["diversity@6"])


def test_bad_input_is_named(prepared):
    scores = prepared.splits["test"].batch.scores
    with pytest.raises(ValueError, match=r"\(599, 20\).*\(600, 20\)"):
        run(prepared, scores[1:])
    with pytest.raises(ValueError, match="cannot show 21 of 20 candidates"):
        run(prepared, scores, k=21)
    with pytest.raises(ValueError, match=r"item id \d+ has no vector.*3 vectors"):
        run(prepared._replace(item_vectors=prepared.item_vectors[:3]), scores)
    broken = scores.copy()
    broken[7, 0] = np.nan
    with pytest.raises(ValueError, match=r"1 requests are NaN.*request 7"):
        run(prepared, broken)
