"""The notebooks of `examples/` run from top to bottom on a CPU, on small data."""

import json
import logging
import re
import socket
import tomllib
from pathlib import Path

import jax
import numpy as np
import polars as pl
import pytest
from linear_reranker import LINEAR
from notebooks import cells, execute
from tiny_runs import merged, tiny_config, write_ratings

from configs import recflow
from dnr_jax.rerankers import RERANKERS

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An empty folder to work in, an empty home, and a small model that compiles quickly."""
    folder, logger = tmp_path_factory.mktemp("examples"), logging.getLogger("dnr_jax")
    before = logger.level, logger.propagate, list(logger.handlers)
    quick = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HOME", str(folder))
        patch.setenv("MPLBACKEND", "Agg")
        patch.setitem(RERANKERS, "linear", LINEAR)
        yield folder
    jax.config.update("jax_disable_most_optimizations", quick)
    logger.level, logger.propagate, logger.handlers[:] = before


def run(name, **parameters):
    with pytest.MonkeyPatch.context() as patch:
        for parameter, value in parameters.items():
            patch.setenv(parameter, str(value))
        return execute(EXAMPLES / name)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def config_file(path, config):
    path.write_text(f"def get_config(preset=''):\n    return {config!r}\n")
    return path


@pytest.fixture(scope="module")
def colab(place):
    """The names of the Colab notebook after it has run."""
    write_ratings(place / "ratings")
    tiny = {"reranker": {"name": "linear"}, "cache": str(place / "cache")}
    world = {"simulate": {"users": 80, "videos": 800, "days": 3}}
    own = {"table": "retriever,score", "data": world, "train": {"epochs": 1, "lambda_e": 1}}
    own = merged(recflow.get_config("smoke").to_dict(), {**tiny, **own})
    films = tiny_config(place, table="random,retriever", retriever={"name": "popularity"}, **tiny)
    return run(
        "colab_tpu.ipynb",
        DEVICE="cpu",
        RUNS=place / "runs",
        KEEP=place / "drive",
        RECFLOW=config_file(place / "recflow_tiny.py", own),
        MOVIELENS=config_file(place / "movielens_tiny.py", films),
        RATINGS=place / "ratings",
        BENCHMARK="score --rivals --smoke",
    )


def test_the_colab_notebook_keeps_two_runs_whole(colab, place):
    for name in ("recflow", "movielens"):
        kept, made = place / "drive" / name, place / "runs" / name
        assert (kept / "results.json").read_bytes() == (made / "results.json").read_bytes()
    assert json.loads((place / "drive" / "movielens" / "config.json").read_text())["data"][
        "path"
    ] == str(place / "ratings")


def test_the_colab_notebook_supports_what_the_package_does():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [needed] = [d for d in project["dependencies"] if re.match(r"jax[><=]", d)]
    assert f'SUPPORTED = "{needed.removeprefix("jax")}"' in "\n".join(
        cells(EXAMPLES / "colab_tpu.ipynb")
    )


def test_results_are_read_and_drawn(colab, place, capsys):
    names = run(
        "read_results.ipynb", RUN=place / "runs" / "recflow", CACHE=place / "cache", ROW="score"
    )
    plt = names["plt"]
    assert len(plt.get_fignums()) == 1  # Agg keeps the one figure that nobody closes
    plt.close("all")
    assert names["truth"] == "truth"  # which the simulator knows
    ranked, wins = names["ranked"], names["wins"]
    assert set(wins["request_id"]) <= set(ranked["request_id"])
    assert np.all(np.diff(wins["difference"]) <= 0)
    said = capsys.readouterr().out
    assert re.search(rf"better \d+, worse \d+, of {len(wins)}\n", said)


def test_logs_become_a_model_that_ranks_new_requests(place):
    options = "--rows retriever,score --seeds 1 --epochs 1 --set reranker.name=linear"
    names = run(
        "logs_to_service.ipynb",
        WORK=place / "work",
        REQUESTS=200,
        OPTIONS=f"{options} --cache {place / 'cache'}",
        PORT=free_port(),
    )
    ranked = pl.read_parquet(place / "work" / "ranked.parquet")
    assert ranked["request_id"].n_unique() == 20
    assert len(ranked) == len(names["new"])
    assert names["model"].card["row"] == "score"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_without_outputs_and_its_links_lead_somewhere(path):
    book = json.loads(path.read_text())
    assert (book["nbformat"], book["metadata"]["kernelspec"]["name"]) == (4, "python3")
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    for cell in book["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        for link in re.findall(r"\]\(([^)#]+)", "".join(cell["source"])):
            assert link.startswith("https://") or (path.parent / link).exists(), link


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_parameters_are_in_the_first_cell(path):
    first, *rest = cells(path)
    assert "os.environ.get(" in first
    assert not [cell for cell in rest if "os.environ.get" in cell]
