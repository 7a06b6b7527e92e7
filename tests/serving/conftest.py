"""Models small enough to be trained within a test run, on a table made by hand."""

import polars as pl
import pytest
from program import call

from configs import table as config_file
from dnr_jax import experiment, serving
from dnr_jax.data.table import simulator
from dnr_jax.data.table.settings import TableSimulation
from dnr_jax.serving import exporting, online

__all__ = ["call"]


@pytest.fixture(scope="session")
def logs():
    """A table whose scores have a scale of their own, with numbers, bags and text as features."""
    frame = simulator.table(TableSimulation(requests=300, users=30, candidates=8))
    return frame.with_columns(pl.col("score") * 40 + 1e6)


@pytest.fixture(scope="session")
def run(tmp_path_factory, logs):
    """A run folder with a model that reads scores, one that does not, and a trivial one."""
    folder = tmp_path_factory.mktemp("trained")
    logs.write_parquet(folder / "log.parquet")
    config = config_file.get_config("smoke").to_dict()
    config |= {"table": "retriever,plain,score", "cache": str(folder / "cache")}
    config["data"] |= {"path": str(folder / "log.parquet"), "history": 5}
    config["data"]["hashed"] = "u_city=50,i_tags=50"  # text, and a list of numbers
    config["reranker"] |= {"width": 8, "heads": 1, "feed_forward": 8}
    config["train"] |= {"epochs": 1, "lambda_e": 1}
    [made] = experiment.run_all(config, folder / "run")
    return made


@pytest.fixture(scope="session")
def packed(run, tmp_path_factory):
    """The model folder of the row `score`."""
    return serving.pack(run, "score", tmp_path_factory.mktemp("packed") / "model")


@pytest.fixture(scope="session")
def exported(packed, tmp_path_factory):
    """The model of `packed`, exported."""
    folder = tmp_path_factory.mktemp("exported") / "artefact"
    exporting.export(packed, None, folder)
    return folder


@pytest.fixture(scope="module")  # programs are dropped after each file
def engine(packed):
    """What scores the requests of a service of `packed`, warm: batches 1 and 2, lists 8 and 16."""
    made = online.Engine(serving.load(packed), most=2, longest=11)
    assert made.warm() == 4
    return made


@pytest.fixture
def candidates(logs):
    """The candidates of 40 requests, of which no label is known; the history is given."""
    some = logs.filter(pl.col("request_id") >= logs["request_id"].max() - 39)
    past = pl.lit([3, 5, -1]).alias("history")
    return some.drop("label", "position").with_columns(past)
