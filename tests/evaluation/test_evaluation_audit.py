"""The audit passes a clean data set and finds every planted flaw."""

import json
import time

import numpy as np
import pytest

from dnr_jax import evaluation
from dnr_jax.evaluation import integrity, probes


def level_of(findings, check):
    return {f["check"]: f["level"] for f in findings["findings"]}[check]


def run(prepared, protocol="retrieved_pool"):
    return evaluation.audit(prepared, k=6, protocol=protocol)


def test_a_clean_data_set_passes_and_the_result_is_json(prepared):
    findings = run(prepared)
    assert findings["level"] == "OK", evaluation.render(findings)
    assert json.loads(json.dumps(findings, allow_nan=False)) == findings
    scorers = findings["scorers"]["test"]
    assert scorers["reversed"]["n@6"] < scorers["constant"]["n@6"] < scorers["retriever"]["n@6"]
    assert all(x.startswith("OK ") for x in evaluation.render(findings).splitlines()[1:])


def test_inverted_scores_are_called_a_leak(inverted):
    findings = run(inverted, "exposed_plus_retrieved")
    text = evaluation.render(findings)
    assert findings["level"] == "LEAK"
    assert level_of(findings, "scores test") == "LEAK"
    reversed_ndcg = findings["scorers"]["test"]["reversed"]["n@6"]
    assert "scores leak the answer" in text
    assert f"sorting by the NEGATIVE score alone gives N@6 = {reversed_ndcg:.3f}" in text
    assert level_of(findings, "protocol") == "WARN"


def test_scores_that_know_nothing_are_a_warning(prepared, spoiled):
    flat = np.full((600, 20), 0.5, np.float32) * prepared.splits["test"].batch.weights
    assert level_of(run(spoiled(prepared, "test", scores=flat)), "scores test") == "WARN"


def test_scores_that_only_tell_what_was_shown_are_a_warning(prepared, spoiled):
    batch = prepared.splits["test"].batch
    rng = np.random.default_rng(0)
    exposed = batch.request.where & ((batch.labels > 0) | (rng.random((600, 20)) < 0.3))
    scores = (0.5 * exposed + 0.5 * rng.random((600, 20))) * batch.request.where
    findings = run(spoiled(prepared, "test", exposed=exposed, scores=scores.astype(np.float32)))
    assert level_of(findings, "exposure test") == "WARN"
    assert level_of(findings, "exposure valid") == "OK"
    assert "which items were shown, not which were liked" in evaluation.render(findings)


def test_positives_stored_first_are_found(prepared, spoiled):
    train, test = (prepared.splits[n].batch for n in ("train", "test"))
    spoilt = spoiled(prepared, "test", labels=-np.sort(-test.labels, axis=1))
    findings = run(spoiled(spoilt, "train", labels=-np.sort(-train.labels, axis=1)))
    for check in ("positions test", "positions train", "stored_order test", "position test"):
        assert level_of(findings, check) == "LEAK", check
    assert level_of(findings, "positions valid") == "OK"
    assert level_of(findings, "constant test") == "OK"


def test_a_test_pair_in_training_is_found(prepared, spoiled):
    train, test = prepared.splits["train"].batch, prepared.splits["test"].batch
    row = np.flatnonzero(test.labels.sum(axis=1))[0]
    item = test.request.candidates[row, np.argmax(test.labels[row]), 0]
    user, history = train.request.user.copy(), train.request.history.copy()
    user[0], history[0, 0, 0] = test.request.user[row], item
    spoilt = spoiled(prepared, "train", user=user, history=history)
    assert level_of(run(spoilt), "training pairs") == "LEAK"
    assert level_of(run(spoilt, "logged"), "training pairs") == "WARN"
    own = test.request.history.copy()
    own[row, 0, 0] = item
    assert level_of(run(spoiled(prepared, "test", history=own)), "own history") == "LEAK"


def test_a_test_positive_among_training_negatives_is_a_warning(prepared, spoiled):
    train, test = prepared.splits["train"].batch, prepared.splits["test"].batch
    row = np.flatnonzero(test.labels.sum(axis=1))[0]
    user, candidates = train.request.user.copy(), train.request.candidates.copy()
    negative = np.argmin(train.labels[0])
    user[0] = test.request.user[row]
    candidates[0, negative, 0] = test.request.candidates[row, np.argmax(test.labels[row]), 0]
    findings = run(spoiled(prepared, "train", user=user, candidates=candidates))
    assert level_of(findings, "training negatives") == "WARN"
    assert level_of(findings, "training pairs") == "OK"


def test_repeated_requests_duplicates_and_labelled_padding_are_found(prepared, spoiled):
    split = prepared.splits["test"]
    ids = split.request_id.copy()
    ids[0] = prepared.splits["train"].request_id[0]
    assert level_of(run(spoiled(prepared, "test", request_id=ids)), "request ids") == "LEAK"
    items = split.batch.request.candidates.copy()
    items[3, 1] = items[3, 0]
    assert level_of(run(spoiled(prepared, "test", candidates=items)), "duplicates") == "LEAK"
    labels = split.batch.labels.copy()
    labels[tuple(np.argwhere(~split.batch.request.where)[0])] = 1
    assert level_of(run(spoiled(prepared, "test", labels=labels)), "padding") == "LEAK"


@pytest.mark.parametrize(("field", "value"), [("scores", np.nan), ("scores", 1.5), ("labels", -1)])
def test_values_out_of_range_stop_the_audit(prepared, spoiled, field, value):
    array = getattr(prepared.splits["valid"].batch, field).copy()
    array[4, 2] = value
    with pytest.raises(ValueError, match=f"{field} of split 'valid'.*request 4, candidate 2"):
        run(spoiled(prepared, "valid", **{field: array}))


def test_the_position_test_keeps_its_level():
    """Under uniform positions the p-value is uniform, also for lists of unequal length."""
    rng = np.random.default_rng(0)
    p = []
    for _ in range(300):
        where = np.arange(10) < rng.integers(4, 11, 300)[:, None]
        drawn = np.argsort(np.argsort(rng.random((300, 10)) + 2 * ~where, axis=1), axis=1)
        p.append(integrity.position_p_value(drawn < 3, where))
    assert np.mean(np.array(p) < 0.5) == pytest.approx(0.5, abs=0.12)
    assert np.mean(np.array(p) < 0.05) < 0.1
    assert np.isnan(integrity.position_p_value(drawn[:2] < 1, where[:2]))


def test_chance_is_the_mean_over_random_orders(prepared):
    split = prepared.splits["test"]
    rng = np.random.default_rng(0)
    orders = rng.random((40, 600, 20)).astype(np.float32)
    where, labels = split.batch.request.where, split.batch.labels
    found = [probes.per_request_metrics(x, labels, where, k=6) for x in orders]
    for metric, expected in probes.chance(split, k=6).items():
        assert np.nanmean([f[metric] for f in found]) == pytest.approx(expected, abs=0.01)


def only(count):
    """Keep the labels of the first `count` requests that have a positive."""

    def change(labels, where):
        rows = np.flatnonzero(labels.any(axis=1))[:count]
        return np.where(np.isin(np.arange(len(labels)), rows)[:, None], labels, 0)

    return change


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (only(0), "no request of this split has a positive"),
        (only(1), "1 request of this split has both a positive and a negative"),
        (lambda labels, where: where.astype(np.float32), "no request of this split has both"),
    ],
)
def test_what_cannot_be_computed_is_said_and_never_ok(prepared, spoiled, split, change, said):
    batch = prepared.splits[split].batch
    labels = change(batch.labels, batch.request.where).astype(np.float32)
    findings = run(spoiled(prepared, split, labels=labels, exposed=batch.request.where))
    text = evaluation.render(findings)
    assert "nan" not in text.lower()
    assert said in text
    for check in ("scores", "stored_order", "position"):
        assert level_of(findings, f"{check} {split}") == "WARN", check
    told = [f for f in findings["findings"] if said in f["text"]]
    assert told
    assert {f["level"] for f in told} == {"WARN"}
    scorers = findings["scorers"][split]
    for scorer in ("constant", "retriever", "reversed"):
        unknown = None in scorers[scorer].values()
        assert (level_of(findings, f"{scorer} {split}") != "OK") == unknown, scorer


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_split_without_positives_is_refused(prepared, spoiled, split):
    evaluation.refuse_unmeasurable(prepared)
    batch = prepared.splits[split].batch
    unjudged = spoiled(prepared, split, weights=np.zeros_like(batch.weights))
    for empty in (spoiled(prepared, split, labels=np.zeros_like(batch.labels)), unjudged):
        with pytest.raises(ValueError, match=f"none of the 600 requests of the {split} split"):
            evaluation.refuse_unmeasurable(empty)


def test_shown_candidates_that_are_all_positive_leave_the_exposure_unknown(prepared, spoiled):
    batch = prepared.splits["test"].batch
    findings = run(spoiled(prepared, "test", exposed=batch.labels > 0))
    assert level_of(findings, "exposure test") == "WARN"
    assert "nan" not in evaluation.render(findings)


def test_lists_that_begin_in_a_tie_are_told_with_their_share(prepared):
    def tied(count):
        return prepared._replace(report={"lists": {"lists": 800, "lists_starting_in_a_tie": count}})

    findings = run(tied(160))
    assert level_of(findings, "ties") == "WARN"
    assert "WARN  ties:                 20.0% of lists (160 of 800)" in evaluation.render(findings)
    assert level_of(run(tied(0)), "ties") == "OK"
    assert "ties" not in evaluation.render(run(prepared))


def test_no_positive_at_all_is_reported_not_a_crash(prepared, spoiled):
    empty = np.zeros((600, 20), np.float32)
    findings = run(spoiled(prepared, "test", labels=empty))
    assert level_of(findings, "pool test") == "WARN"
    assert findings["scorers"]["test"]["retriever"]["n@6"] is None


def test_ten_thousand_requests_take_seconds(large):
    start = time.process_time()
    run(large)
    assert time.process_time() - start < 15  # about 2 s, compilation included
