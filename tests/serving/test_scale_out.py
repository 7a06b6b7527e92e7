"""The how-to's blocks for engines rank a folder of candidates as the scorer ranks the whole table.

Requests go across the files and batches, as engines cut where they like.
"""

import re
import shutil
import sys
from itertools import pairwise
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

import dnr_jax
from dnr_jax.serving import whole_requests

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how_to" / "scale_out.md"


def block(engine):
    found = re.search(rf"<!-- {engine} -->\n```python\n(.*?)```", PAGE.read_text(), re.S)
    assert found, f"no block of {engine}"
    return found[1]


@pytest.fixture
def place(packed, candidates, tmp_path, monkeypatch):
    """A folder with MODEL and CANDIDATES, three files cut inside requests."""
    shutil.copytree(packed, tmp_path / "MODEL")
    (tmp_path / "CANDIDATES").mkdir()
    cuts = [0, 50, 101, len(candidates)]
    for number, (first, last) in enumerate(pairwise(cuts)):
        name = tmp_path / "CANDIDATES" / f"part-{number}.parquet"
        candidates[first:last].write_parquet(name, row_group_size=40)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the engines' own processes
    return tmp_path


def assert_ranked(place, packed, candidates, *, left_out=()):
    found = pl.read_parquet(place / "RANKED" / "*.parquet").sort("request_id", "rank")
    expected = pl.from_arrow(dnr_jax.Scorer(packed)(candidates.to_arrow()))
    expected = expected.sort("request_id", "rank")
    assert found.columns == [name for name in expected.columns if name not in left_out]
    for name in set(found.columns) - {"score"}:
        assert found[name].to_list() == expected[name].to_list()
    assert found["score"].to_list() == pytest.approx(expected["score"].to_list(), abs=1e-5)


def test_a_plain_loop(place, packed, candidates):
    exec(block("plain"), {})
    assert_ranked(place, packed, candidates)


@pytest.mark.filterwarnings("default")  # the engine's own
def test_ray(place, packed, candidates):
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'ray[data]'")
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False)
    try:
        exec(block("ray"), {})
    finally:
        ray.shutdown()
    assert_ranked(place, packed, candidates)


@pytest.mark.filterwarnings("default")  # the engine's own
def test_spark(place, packed, candidates, monkeypatch):
    pytest.importorskip("pyspark", reason="needs Spark: pip install pyspark, and Java")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java, which is not here")
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    names = {}
    try:
        exec(block("spark"), names)
    finally:
        if "spark" in names:
            names["spark"].stop()
    assert_ranked(place, packed, candidates, left_out=["timestamp"])


def batches_of(ids, sizes):
    """Cut a table of these request ids into batches of these sizes."""
    table, first = pa.table({"request_id": ids, "row": range(len(ids))}), 0
    for size in sizes:
        yield pa.RecordBatch.from_pydict(table.slice(first, size).to_pydict(), schema=table.schema)
        first += size


@pytest.mark.parametrize("sizes", [[9], [1] * 9, [0, 4, 0, 5, 0], [3, 3, 3], [8, 1]])
def test_batches_become_tables_of_whole_requests(sizes):
    ids = ["a", "b", "b", "b", "b", "b", "c", "d", "d"]
    tables = list(whole_requests(batches_of(ids, sizes)))
    assert [row for table in tables for row in table["row"].to_pylist()] == list(range(9))
    owners = [name for table in tables for name in set(table["request_id"].to_pylist())]
    assert len(owners) == len(set(owners))
    assert all(len(table) for table in tables)
    assert list(whole_requests(batches_of(ids, []))) == []
