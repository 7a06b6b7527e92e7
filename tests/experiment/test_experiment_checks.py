"""Bad input: one clear error each, said before any long work."""

import polars as pl
import pytest
from recflow_cases import DAYS, write

from configs import recflow
from dnr_jax import experiment
from dnr_jax.data import movielens_simulator


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Run a config that must be refused before anything is trained; return the error's text."""
    monkeypatch.setattr(experiment.players, "build_all", None)  # training would fail otherwise

    def check(config, kind=ValueError):
        config = config | {"cache": str(tmp_path / "cache")}
        with pytest.raises(kind) as error:
            experiment.run(config, tmp_path / "run")
        assert not list((tmp_path / "cache").glob("prepared/*"))
        return str(error.value)

    return check


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"reranker": {"name": "pmr"}}, "config.reranker.name: .* 'pmr'; did you mean 'prm'"),
        ({"noise": {"name": "bata"}, "table": "score,own"}, "config.noise.name.*'beta'"),
        ({"generator": {"name": "learned_mx"}}, "config.generator.name.*'learned_mix'"),
        ({"generator": {"name": "beta"}}, "config.generator.name.*Known: learned_direct"),
        ({"divergence": {"name": "densty"}}, "config.divergence.name.*'density'"),
        ({"candidates": {"name": "retrieved"}}, "config.candidates.name.*'retrieved_pool'"),
        ({"candidates": {"name": "logged"}}, r"config.candidates.name \(for movielens\)"),
        ({"data": {"name": "movielense"}}, "config.data.name.*'movielens'"),
        ({"retriever": {"name": "matrix"}}, "matrix_factorization"),
        ({"retriever": {"loss": "bpq"}}, "bpr"),
        ({"retriever": {"score": "maxmin"}}, "minmax"),
        ({"reranker": {"positions": "ranks"}}, "rank"),
        ({"reranker": {"score_entry": "concat"}}, "concatenate"),
        ({"candidates": {"size": 5}}, "config.candidates.size is 5, config.eval.k is 6"),
        ({"candidates": {"size": 6}}, "more candidates than places"),
        ({"eval": {"k": 0}}, "config.eval.k is 0"),
        ({"train": {"epochs": 0}}, "config.train.epochs is 0: it must be 1 or more"),
        ({"train": {"seeds": 0}}, "config.train.seeds is 0"),
        ({"train": {"lambda_e": -1}}, "config.train.lambda_e is -1: it must be 0 or more"),
        ({"objective": {"lambda_x": float("nan")}}, "config.objective.lambda_x is nan"),
        ({"table": "score,dnr_x"}, "no row 'dnr_x'; did you mean"),
        ({"table": ""}, "name each row to run once"),
    ],
)
def test_a_config_that_cannot_work_is_refused(tiny, refused, changes, expected):
    config = tiny()
    config["rows"]["own"] = {"model": "own", "label": "own", "set": {}}
    changes = {"table": "score,own"} | changes
    text = refused(tiny_merge(config, changes))
    assert pytest.match_text(expected, text) if False else __import__("re").search(expected, text)
