"""Propensities and several labels, from the table to the loss, against sums written out by hand."""

import math

import numpy as np
import polars as pl
import pytest
from table_cases import log, prepare

from dnr_jax.data.encoders import KNOWN
from dnr_jax.objectives import LOSSES

CAP = 10.0
SHOWN = {1: 1.0, 2: 0.5, 3: 0.04}  # propensity by position; 1 / 0.04 is above the cap


def logit(item):
    """A scorer of raw item ids."""
    return math.sin(item)


def by_hand(frame, requests, z, *, loss):
    """The loss of the rows of some requests, each weighed by min(1 / propensity, cap)."""
    total = mass = 0.0
    for _, rows in frame.filter(pl.col("request_id").is_in(requests)).group_by("request_id"):
        judged = [r for r in rows.to_dicts() if r["position"] is not None]
        weights = [min(1 / SHOWN[r["position"]], CAP) for r in judged]
        scores, targets = [logit(r["item_id"]) for r in judged], [z(r) for r in judged]
        if loss == "bce":
            for s, t, w in zip(scores, targets, weights, strict=True):
                total += w * (math.log1p(math.exp(s)) - t * s)
                mass += w
        else:
            gains = [w * math.exp(t) * (t > 0) for t, w in zip(targets, weights, strict=True)]
            norm = math.log(sum(math.exp(s) for s in scores))
            total -= sum(g * (s - norm) for g, s in zip(gains, scores, strict=True)) / sum(gains)
            mass += 1
    return total / mass


def computed(prepared, loss):
    batch = prepared.splits["train"].batch
    keys = prepared.encoders.vocabularies["item_id"].keys
    items = keys[np.maximum(batch.request.candidates[..., 0] - KNOWN, 0)]
    return float(LOSSES[loss].mean(np.sin(items.astype(np.float32)), batch.labels, batch.weights))


@pytest.mark.parametrize("loss", ["bce", "attention_rank"])
def test_clipped_inverse_propensities_weigh_the_loss(tmp_path, loss):
    seen = pl.col("position").replace_strict(SHOWN, default=None)
    frame = log(propensity=seen)
    prepared = prepare(frame, tmp_path, weight_cap=CAP)
    requests = prepared.splits["train"].request_id.tolist()
    expected = by_hand(frame, requests, lambda r: r["label"], loss=loss)
    np.testing.assert_allclose(computed(prepared, loss), expected, rtol=1e-5)
    [said] = [text for text in prepared.report["findings"] if text.startswith("propensities")]
    assert said == (
        "propensities: a label counts 1 / propensity in the loss, at most 10 (40 of 120 are "
        "above); metrics count all alike"
    )


def test_several_labels_train_with_their_weights(tmp_path):
    third = pl.when(pl.col("position") == 3).then(1.0).otherwise(0.0)
    shown = pl.col("position").is_not_null()
    frame = log().with_columns(
        label_click=pl.when(shown).then(pl.col("label") + third),
        label_buy=pl.when(shown).then(third),
        propensity=pl.col("position").replace_strict(SHOWN, default=None),
    )
    frame = frame.drop("label")
    prepared = prepare(frame, tmp_path, labels="label_click:1,label_buy:3", grades="as_is")
    requests = prepared.splits["train"].request_id.tolist()

    def z(row):
        return (row["label_click"] + 3 * row["label_buy"]) / 4

    expected = by_hand(frame, requests, z, loss="bce")
    np.testing.assert_allclose(computed(prepared, "bce"), expected, rtol=1e-5)
    text = prepared.report["findings"][0]
    assert "label, weight 0.25 = label_click, label, weight 0.75 = label_buy" in text
