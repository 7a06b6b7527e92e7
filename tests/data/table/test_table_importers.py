"""Files that people hold become log tables: small ones written here, real ones where they are."""

import gzip
import json
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from dnr_jax.data.table import importers
from tests.table_cases import examine, prepare

SHARED = Path(__file__).parents[4] / "shared" / "data"
LETOR = """2 qid:7 1:0.5 3:2 #docid = GX-1 inc = 1 prob = 0.2
0 qid:7 1:0.25 2:NULL # GX-2
1 qid:9 2:1
"""


def real(*parts):
    """A file or folder of the real data; the test is skipped where it is not."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {path}, which is not here")
    return path


def test_letor_lines_become_numeric_columns(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text(LETOR)
    frame = importers.read_letor(path, names={3: "bm25"})
    assert frame.to_dict(as_series=False) == {
        "request_id": ["7", "7", "9"],
        "item_id": ["GX-1", "GX-2", "9-1"],
        "label": [2.0, 0.0, 1.0],
        "i_1": [0.5, 0.25, 0.0],
        "i_2": [0.0, None, 1.0],
        "i_bm25": [2.0, 0.0, 0.0],
    }
    assert importers.read_letor(path, features=5).columns[3:] == [f"i_{n}" for n in range(1, 6)]
    packed = tmp_path / "train.txt.gz"
    packed.write_bytes(gzip.compress(LETOR.encode()))
    assert importers.read_letor(packed, names={3: "bm25"}).equals(frame)


def test_letor_in_blocks_is_letor_in_one(tmp_path, monkeypatch):
    path = tmp_path / "train.txt"
    path.write_text(LETOR * 5)
    whole = importers.read_letor(path)
    monkeypatch.setattr("dnr_jax.data.table.importers.letor.LINES_AT_ONCE", 2)
    assert importers.read_letor(path).equals(whole)


def test_sizes_of_queries_stand_for_qids(tmp_path):
    path, sizes = tmp_path / "rank.train", tmp_path / "rank.train.query"
    path.write_text("1 1:0.5\n0 2:1\n0 1:1\n")
    sizes.write_text("2\n1\n")
    frame = importers.read_letor(path, query=sizes)
    assert frame["request_id"].to_list() == ["rank.train:1", "rank.train:1", "rank.train:2"]
    assert frame["item_id"].n_unique() == 3
    sizes.write_text("2\n2\n")
    with pytest.raises(ValueError, match=r"counts 4 rows in 2 queries, but .*rank\.train has 3"):
        importers.read_letor(path, query=sizes)
    with pytest.raises(ValueError, match="line 1 has no qid"):
        importers.read_letor(path)


@pytest.mark.parametrize("line", ["a qid:1 1:2", "1 qid:1 x:2", "1 qid:1 1:y", "1,2,3"])
def test_a_line_that_is_not_letor_is_named(tmp_path, line):
    path = tmp_path / "train.txt"
    path.write_text(f"1 qid:1 1:1\n{line}\n")
    with pytest.raises(ValueError, match=r"train\.txt, line 2 is .*is it an svmlight file"):
        importers.read_letor(path)


def test_an_empty_letor_file_is_refused(tmp_path):
    (tmp_path / "train.txt").write_text("\n# nothing\n")
    with pytest.raises(ValueError, match="has no rows"):
        importers.read_letor(tmp_path / "train.txt")


def test_splits_join_tables_and_keep_requests_apart(tmp_path):
    (tmp_path / "a").write_text(LETOR)
    frame = importers.read_letor(tmp_path / "a")
    joined = importers.join_splits(train=frame, test=frame.drop("i_2"))
    assert joined["request_id"].unique().sort().to_list() == [
        *("test-7", "test-9", "train-7", "train-9")
    ]
    assert joined.filter(split="test")["i_2"].null_count() == 3
    other = frame.with_columns(pl.col("request_id") + "b")
    assert "7b" in importers.join_splits(train=frame, test=other)["request_id"]
    with pytest.raises(ValueError, match="no split 'dev'"):
        importers.join_splits(dev=frame)


def test_a_trec_run_meets_its_qrels(tmp_path):
    run, judged = tmp_path / "run", tmp_path / "qrels"
    run.write_text("q1 Q0 d1 1 3.5 me\nq1 Q0 d2 2 4.5 me\nq1 Q0 d3 3 1 me\nq2\tQ0\td1\t1\t2\tme\n")
    judged.write_text("q1 0 d1 2\nq1 0 d3 -2\nq1 0 d9 1\nq3 0 d1 1\n")
    assert importers.read_trec(run, judged).to_dict(as_series=False) == {
        "request_id": ["q1", "q1", "q1", "q2"],
        "item_id": ["d2", "d1", "d3", "d1"],
        "rank": [1, 2, 3, 1],
        "score": [4.5, 3.5, 1.0, 2.0],
        "label": [None, 2.0, 0.0, None],
    }


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("q1 Q0 d1 1 3.5", "run, line 2 is 'q1 Q0 d1 1 3.5', expected 6 fields"),
        ("q1 Q0 d2 1 high me", "run, line 2: score is 'high', expected a number"),
    ],
)
def test_a_line_that_is_not_of_a_run_is_named(tmp_path, line, expected):
    (tmp_path / "run").write_text(f"q1 Q0 d1 1 3.5 me\n{line}\n")
    (tmp_path / "qrels").write_text("q1 0 d1 2\n")
    with pytest.raises(ValueError, match=expected):
        importers.read_trec(tmp_path / "run", tmp_path / "qrels")
    (tmp_path / "run").write_text("q8 Q0 d1 1 3.5 me\n")
    with pytest.raises(ValueError, match="no query in common"):
        importers.read_trec(tmp_path / "run", tmp_path / "qrels")


def test_mind_impressions_become_requests(tmp_path):
    (tmp_path / "behaviors.tsv").write_text(
        "1\tU1\t11/11/2019 9:05:58 AM\tN5 N6 N7\tN1-0 N2-1\n"
        "2\tU2\t11/12/2019 6:11:30 PM\t\tN1-1 N3-0 N2-0\n"
    )
    (tmp_path / "news.tsv").write_text(
        'N1\tsports\tgolf\tTitle "one\t\turl\t[]\t[]\nN2\tnews\tworld\tTitle\t\turl\t[]\t[]\n'
    )
    frame = importers.read_mind(tmp_path, history=2)
    assert frame["item_id"].to_list() == ["N1", "N2", "N1", "N3", "N2"]
    assert frame["label"].to_list() == [0, 1, 1, 0, 0]
    assert frame["timestamp"][2] == datetime(2019, 11, 12, 18, 11, 30)
    assert frame["history"].to_list() == [["N6", "N7"]] * 2 + [[]] * 3
    assert frame["i_category"].to_list() == ["sports", "news", "sports", None, "news"]
    (tmp_path / "behaviors.tsv").write_text("1\tU1\t11/11/2019 9:05:58 AM\tN5\tN1 N2\n")
    with pytest.raises(ValueError, match=r"'N1' in an impression.*no labels"):
        importers.read_mind(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"behaviors\.tsv"):
        importers.read_mind(tmp_path / "nowhere")


def test_atomic_files_keep_their_types(tmp_path):
    (tmp_path / "x.inter").write_text("user_id:token\titem_id:token\trating:float\n1\t7\t4\n")
    (tmp_path / "x.item").write_text("item_id:token\tgenre:token_seq\tvec:float_seq\n7\tA B\t1 2\n")
    inter, items = (importers.read_recbole(tmp_path / name) for name in ("x.inter", "x.item"))
    assert inter.to_dicts() == [{"user_id": "1", "item_id": "7", "rating": 4.0}]
    assert items.to_dicts() == [{"item_id": "7", "i_genre": ["A", "B"], "i_vec": [1.0, 2.0]}]
    (tmp_path / "x.user").write_text("user_id\n1\n")
    with pytest.raises(ValueError, match="the header has 'user_id', expected NAME:TYPE"):
        importers.read_recbole(tmp_path / "x.user")
    (tmp_path / "x.user").write_text("user_id:token\tage:float\n1\told\n")
    with pytest.raises(ValueError, match="age:float has a value that is not a number"):
        importers.read_recbole(tmp_path / "x.user")


def test_lightgbm_s_ranking_example_is_read_whole(tmp_path):
    folder = real("lightgbm-lambdarank")
    parts = {
        name: importers.read_letor(
            folder / f"rank.{name}", query=folder / f"rank.{name}.query", features=300
        )
        for name in ("train", "test")
    }
    assert [len(part) for part in parts.values()] == [3005, 768]
    prepared = prepare(importers.join_splits(**parts), tmp_path, size=40, slate=5, min_count=2)
    splits = prepared.report["splits"]
    assert sum(split["requests"] for split in splits.values()) == 201 + 50
    assert prepared.report["candidates_cut"] == 0
    assert len(prepared.spec.item_numbers) == 300
    assert prepared.splits["test"].batch.request.item_numbers.any()


def test_trec_news_is_read_whole():
    folder = real("trec-news-ltr")
    names = json.loads((folder / "trec_news_2018.features.json").read_text())
    numbered = {int(number): name for number, name in names.items()}
    parts = [
        importers.read_letor(folder / f"trec_news_2018.{name}", names=numbered)
        for name in ("train", "test")
    ]
    frame = importers.join_splits(train=parts[0], test=parts[1])
    judged = importers.read_qrels(folder / "newsir18-entity.qrel")
    assert len(frame) == len(judged) == 823
    counts = [table["label"].value_counts().sort("label") for table in (frame, judged)]
    assert counts[0].equals(counts[1])
    assert "i_pagerank" in frame.columns
    assert examine(frame, grades="exponential").rows == 823


def test_ebnerd_impressions_are_read_whole(tmp_path):
    frame = importers.read_ebnerd(real("ebnerd-sample"))
    prepared = prepare(frame, tmp_path, size=30, slate=5, history=20)
    report = prepared.report
    assert report["requests"] == 1046
    assert report["users"] == 38
    assert report["time"]["first"].startswith("2023-02-2")
    for split in report["splits"].values():
        assert split["requests_without_history"] == 0
        assert split["requests_without_positive"] == 0
