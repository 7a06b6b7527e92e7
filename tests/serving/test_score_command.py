"""`dnr-jax score` and `pack`: whole files or none, resumed by part, bounded, in plain words."""

import itertools
import json

import polars as pl
import pytest

from dnr_jax import cli
from dnr_jax.serving import Scorer, files

IDS = ["request_id", "item_id"]


@pytest.fixture
def table(candidates, tmp_path):
    path = tmp_path / "candidates.parquet"
    candidates.write_parquet(path, row_group_size=30)
    return path


def score(call, packed, table, out, *more):
    cache = ["--cache", out.parent / "cache"]
    return call("score", packed, table, "--out", out, "--part-rows", "50", *cache, *more)


def test_a_file_is_scored_in_parts_as_a_table_is_at_once(call, packed, table, candidates, tmp_path):
    out = tmp_path / "ranked.parquet"
    code, said, err = score(call, packed, table, out)
    assert code == 0, err
    assert f"40 requests, {len(candidates)} candidates" in said
    found = pl.read_parquet(out)
    expected = pl.DataFrame(pl.from_arrow(Scorer(packed)(candidates.to_arrow())))
    alike = ["retriever_score", "user_id", "timestamp"]
    assert found.columns == expected.columns
    mine, theirs = (ranked.select(*IDS, *alike).sort(IDS) for ranked in (found, expected))
    assert mine.equals(theirs)
    joined = found.join(expected, on=IDS)
    assert (joined["score"] - joined["score_right"]).abs().max() < 1e-5
    assert {path.name for path in tmp_path.iterdir()} - {"cache"} == {table.name, out.name}


def test_an_interrupted_call_goes_on_and_ends_with_the_same_bytes(
    call, packed, table, tmp_path, monkeypatch
):
    whole, out = tmp_path / "whole.parquet", tmp_path / "ranked.parquet"
    assert score(call, packed, table, whole)[0] == 0
    true, calls = Scorer.computed, []

    def dying(self, coded):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return true(self, coded)

    monkeypatch.setattr(Scorer, "computed", dying)
    code, _, err = score(call, packed, table, out)
    assert code == 130
    assert "stopped: finished parts are kept; start the same command again to go on" in err
    assert not out.exists()
    code, said, _ = score(call, packed, table, out)
    assert code == 0
    assert "of these candidates had already been scored" in said
    assert out.read_bytes() == whole.read_bytes()
    assert len(calls) - 1 == 6  # as many as there are parts: none was scored twice


def test_a_torn_part_is_scored_again(call, packed, table, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole.parquet", tmp_path / "ranked.parquet"
    assert score(call, packed, table, whole)[0] == 0

    def full(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(files.durable, "publish", full_at(out, files.durable.publish, full))
        assert score(call, packed, table, out)[0] == 1
    first, second, *_ = sorted((tmp_path / f".{out.name}.parts").glob("*.arrow"))
    first.write_bytes(first.read_bytes()[:100])
    second.write_bytes(b"")
    code, said, _ = score(call, packed, table, out)
    assert code == 0
    assert "of these candidates had already been scored" in said
    assert out.read_bytes() == whole.read_bytes()


def full_at(path, true, fail):
    """Return a function that fails when it is to publish `path`."""
    return lambda temporary, target: (fail if target == path else true)(temporary, target)


def test_parts_of_another_table_are_not_used(call, packed, table, candidates, tmp_path):
    out = tmp_path / "ranked.parquet"
    parts = tmp_path / f".{out.name}.parts"
    parts.mkdir()
    (parts / "plan.json").write_text(json.dumps({"spans": [0, 1]}))
    (parts / "part-00000.arrow").write_bytes(table.read_bytes())
    code, said, _ = score(call, packed, table, out)
    assert code == 0
    assert "its parts are rebuilt" in said
    assert len(pl.read_parquet(out)) == len(candidates)


def test_unknown_values_and_missing_columns_are_said(call, packed, candidates, tmp_path):
    table = tmp_path / "strange.csv"
    strange = candidates.drop("u_city", "history", "i_tags")
    strange.with_columns(user_id=pl.lit("nobody")).write_csv(table)
    code, said, err = score(call, packed, table, tmp_path / "ranked.parquet")
    assert code == 0, err
    assert "columns missing from the table, treated as unknown: history, u_city, i_tags" in said
    assert "unknown user_id (user): 40 of 40" in said


def test_a_file_that_is_there_is_replaced_only_if_asked(call, packed, table, tmp_path):
    out = tmp_path / "ranked.parquet"
    out.write_text("mine")
    code, _, err = score(call, packed, table, out)
    assert code == 1
    assert err == f"error: {out} exists already: choose another name, or --overwrite\n"
    assert out.read_text() == "mine"
    assert score(call, packed, table, out, "--overwrite")[0] == 0
    assert len(pl.read_parquet(out))


def test_a_file_that_is_read_is_not_replaced(call, packed, candidates, table, tmp_path):
    folder, side = tmp_path / "many", tmp_path / "items.parquet"
    folder.mkdir()
    candidates.write_parquet(folder / "one.parquet")
    candidates.select("item_id").unique().write_parquet(side)
    for given, out in ((table, table), (folder, folder / "one.parquet"), (table, side)):
        more = ["--overwrite", "--item-file", side]
        code, _, err = score(call, packed, given, out, *more)
        assert (code, f"{out} is the same file as the input {out}" in err) == (1, True), err
    with pytest.raises(ValueError, match="choose another name for the output"):
        files.score_file(Scorer(packed), table, table, overwrite=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.sort("item_id"), "are not next to each other"),
        (lambda f: f.with_columns(score=pl.lit(float("nan"))), "row 1: score is nan, expected a"),
        (lambda f: f.drop("score"), "has no score, which this model reads"),
    ],
)
def test_a_bad_table_writes_nothing(call, packed, candidates, tmp_path, change, said):
    table = tmp_path / "candidates.parquet"
    change(candidates).write_parquet(table)
    code, _, err = score(call, packed, table, tmp_path / "ranked.parquet")
    assert code == 1
    assert said in err
    assert err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} - {"cache"} == {table.name}


def test_a_fault_that_is_found_on_the_way_leaves_nothing(packed, table, tmp_path, monkeypatch):
    true, calls = Scorer.computed, []

    def faulty(self, prepared):
        calls.append(1)
        if len(calls) == 3:
            raise ValueError("lists of 2 numbers")
        return true(self, prepared)

    monkeypatch.setattr(Scorer, "computed", faulty)
    with pytest.raises(ValueError, match="lists of 2 numbers"):
        files.score_file(Scorer(packed), table, tmp_path / "ranked.parquet", rows=50)
    assert [path.name for path in tmp_path.iterdir()] == [table.name]


def test_names_are_checked_first(call, packed, run, table, tmp_path):
    code, _, err = score(call, packed, table, tmp_path / "ranked.csv")
    assert code == 1
    assert "must be a Parquet file" in err
    code, _, err = score(call, run, table, tmp_path / "ranked.parquet")
    assert code == 1
    assert "say by row (--row) which of its models: plain, retriever, score" in err


def test_pack_makes_a_model_folder(call, run, table, tmp_path):
    code, said, _ = call("pack", run, "--row", "plain", "--out", tmp_path / "model")
    assert code == 0
    assert "can be copied anywhere" in said
    assert score(call, tmp_path / "model", table, tmp_path / "ranked.parquet")[0] == 0
    before = (tmp_path / "model" / "model.json").read_text()
    code, _, err = call("pack", run, "--row", "plain", "--out", tmp_path / "model")
    assert code == 1
    assert "exists already" in err
    code, _, err = call("pack", run, "--row", "score", "--out", tmp_path / "model", "--overwrite")
    assert code == 0, err
    assert (tmp_path / "model" / "model.json").read_text() != before


def test_parts_end_with_a_request(packed, table):
    scorer = Scorer(packed)
    candidates = scorer.read(table)
    spans = files._spans(candidates, 50, scorer.at_once)
    ids = pl.read_parquet(table)["request_id"].to_list()
    assert spans[0] == 0
    assert spans[-1] == len(ids)
    assert len(spans) == 7
    assert all(ids[cut - 1] != ids[cut] for cut in spans[1:-1])


def test_parts_of_many_requests_hold_whole_batches(packed, table):
    candidates = Scorer(packed).read(table)
    spans = files._spans(candidates, 50, 3)  # 40 requests: about seven have 50 rows
    ids = pl.read_parquet(table)["request_id"]
    counts = [ids[first:last].n_unique() for first, last in itertools.pairwise(spans)]
    assert counts[0] == 3  # the model soon has work
    assert all(count == counts[1] and count % 3 == 0 for count in counts[1:-1])
    assert sum(counts) == ids.n_unique()
    assert spans[-1] == len(ids)


def test_the_command_s_parts_are_those_of_the_function():
    [option] = [p for p in cli.program.commands["score"].params if p.name == "part_rows"]
    assert option.default == files.ROWS
