"""Rank the requests of a split by several trained models, side by side."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import jax
import numpy as np
import polars as pl

from dnr_jax.data.encoders import KNOWN, Encoders
from dnr_jax.data.store import Prepared
from dnr_jax.serving.model import Model
from dnr_jax.serving.shapes import to_power_of_two
from dnr_jax.types import Batch

AT_ONCE = 512  # requests


def rank_split(
    prepared: Prepared,
    models: Mapping[str, Model],
    *,
    split: str = "test",
    requests: Collection[int] | None = None,
) -> pl.DataFrame:
    """Rank every candidate of a split by the first stage and by each model.

    Args:
      prepared: the data that the models were trained on, as from `experiment.run_data`.
      models: models by the name that their columns get; see `load`.
      split: train, valid or test.
      requests: numbers as in `request_id`; None = all of them.

    Returns:
      One row per candidate, those of a request together: `request_id` int64; `item_id` as in the
      raw data, null if unknown; `label` in [0, 1], null if unjudged; `truth`, the true relevance,
      null if not known (only simulators know it); `retriever_score` in [0, 1] and
      `retriever_rank`; `NAME_score` (float32, higher is better) and `NAME_rank` of each model.
      Ranks are int32 from 1; ties keep the order of the rows.

    Raises:
      ValueError: a model was trained on other data.
    """
    for name, model in models.items():
        if model.card["data"]["fingerprint"] != prepared.fingerprint:
            raise ValueError(
                f"model {name} was trained on data {model.card['data']['fingerprint']}, these are "
                f"{prepared.fingerprint}: give the data of its own run"
            )
    part = prepared.splits[split]
    ids = np.asarray(part.request_id)
    rows = np.arange(len(ids)) if requests is None else np.flatnonzero(np.isin(ids, [*requests]))
    batch: Batch = jax.tree.map(lambda array: np.asarray(array[rows]), part.batch)
    scores = {"retriever": np.asarray(batch.scores)}
    scores |= {name: _scores(model, batch) for name, model in models.items()}
    return _frame(batch, ids[rows], part.truth[rows], scores, prepared.encoders)


def _scores(model: Model, batch: Batch) -> np.ndarray:
    """Score all candidates, `float32 [R, N]`."""
    found = [np.zeros((0, batch.scores.shape[1]), np.float32)]
    for first in range(0, len(batch.scores), AT_ONCE):
        rows = slice(first, first + AT_ONCE)
        request, scores = jax.tree.map(lambda a, rows=rows: a[rows], (batch.request, batch.scores))
        padded = jax.tree.map(to_power_of_two, (request, scores))
        found.append(np.asarray(model.order(model.params, *padded))[: len(scores)])
    return np.concatenate(found)


def _frame(
    batch: Batch,
    ids: np.ndarray,
    truth: np.ndarray,
    scores: Mapping[str, np.ndarray],
    encoders: Encoders,
) -> pl.DataFrame:
    where = np.asarray(batch.request.where)
    judged = np.where(np.asarray(batch.weights) > 0, batch.labels, np.nan)
    columns = [
        pl.Series("request_id", np.repeat(ids, where.sum(1))),
        _raw_items(np.asarray(batch.request.candidates)[..., 0][where], encoders),
        pl.Series("label", judged[where].astype(np.float32)).fill_nan(None),
        pl.Series("truth", np.asarray(truth)[where]).fill_nan(None),
    ]
    for name, own in scores.items():
        columns.append(pl.Series(f"{name}_score", own[where]))
        columns.append(pl.Series(f"{name}_rank", _ranks(own, where)[where]))
    return pl.DataFrame(columns)


def _ranks(scores: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Return ranks from 1, `int32 [R, N]`; padding comes last."""
    order = np.argsort(-np.where(where, scores, -np.inf), axis=1, kind="stable")
    return (1 + np.argsort(order, axis=1)).astype(np.int32)


def _raw_items(codes: np.ndarray, encoders: Encoders) -> pl.Series:
    """Turn ids of items back into the data's own."""
    keys = encoders.vocabularies[encoders.spec.item[0]].keys
    known = codes >= KNOWN
    raw = pl.Series("item_id", keys[np.where(known, codes - KNOWN, 0)]) if len(keys) else codes
    frame = pl.DataFrame({"item_id": raw, "known": known})
    return frame.select(pl.when("known").then("item_id").alias("item_id")).to_series()
