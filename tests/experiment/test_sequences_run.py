"""Sequences without times go the whole way: lists, a retriever, a reranker, raw requests."""

from pathlib import Path

import numpy as np
import pytest

import dnr_jax
from configs import interactions
from dnr_jax.experiment import run_all

SMALL = {
    "table": "plain",
    "retriever": {"name": "popularity"},
    "candidates": {"name": "exposed_plus_sampled", "size": 12},
    "reranker": {"width": 8, "heads": 1, "feed_forward": 8},
    "train": {"epochs": 1, "lambda_e": 0, "seeds": 1, "batch_size": 16, "patience": 0},
}


def test_amazon_sequences_train(tmp_path):
    file = Path(__file__).parents[3] / "shared" / "data" / "amazon-sequences" / "Beauty.txt"
    if not file.exists():
        pytest.skip(f"needs {file}, which is not here")
    lines = [x for x in file.read_text().splitlines() if len(x.split()) > 18][:60]
    (tmp_path / "Beauty.txt").write_text("\n".join(lines) + "\n")
    config = interactions.get_config("smoke")
    config.cache = str(tmp_path / "cache")
    config.data.update(path=str(tmp_path / "Beauty.txt"), core=0, history=6)
    for section, knobs in SMALL.items():
        if isinstance(knobs, dict):
            config[section] = {**config.get(section, {}), **knobs}
        else:
            config[section] = knobs
    [run] = run_all(config.to_dict(), tmp_path / "run")
    model = dnr_jax.load(run, row="plain")
    user, *items = map(int, lines[0].split())
    (scores,) = model.scores([{"user": user, "items": items[:8], "history": [[items[8], 1]]}])
    assert np.isfinite(scores).all()
    assert len(set(np.round(scores, 6).tolist())) > 1
