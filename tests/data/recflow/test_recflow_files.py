"""Files as the real ones may be: missing, empty, torn, hostile."""

import os
import pickle

import numpy as np
import polars as pl
import pytest
from recflow_cases import DAYS, DEFAULTS, NOON_MS, build, default_days, event, history, write

from dnr_jax.data import recflow
from dnr_jax.data.recflow import files
from dnr_jax.data.recflow.settings import RecFlowSettings


def test_missing_columns_are_all_named_before_any_work(tmp_path):
    folder = write(tmp_path / "d")
    file = folder / "all_stage" / f"{DAYS[2]}.feather"
    pl.read_ipc(file.read_bytes()).drop("rank_index", "gender").write_ipc(file)
    with pytest.raises(ValueError, match=r"2024-02-18.*\['gender', 'rank_index'\].*it has") as e:
        recflow.check(folder, DEFAULTS)
    assert "video_id" in str(e.value)
    with pytest.raises(ValueError, match="lacks the column"):
        build(folder, tmp_path)


def test_leading_blanks_are_stripped_and_clashes_refused(tmp_path):
    folder = write(tmp_path / "d")
    file = folder / "all_stage" / f"{DAYS[0]}.feather"
    frame = pl.read_ipc(file.read_bytes())
    frame.rename({"category_level_two": " category_level_two"}).write_ipc(file)
    assert build(folder, tmp_path).report["stripped_columns"] == [" category_level_two"]
    frame.with_columns(pl.lit(1).alias(" gender")).write_ipc(file)
    with pytest.raises(ValueError, match="differ only in blanks"):
        recflow.check(folder, DEFAULTS)


def test_parquet_reads_as_well(tmp_path):
    folder = write(tmp_path / "d")
    for name in DAYS:
        file = folder / "all_stage" / f"{name}.feather"
        pl.read_ipc(file.read_bytes()).write_parquet(file.with_suffix(".parquet"))
        file.unlink()
    assert len(build(folder, tmp_path).splits["train"].request_id) == 3


def test_empty_files_and_gaps_are_skipped_and_reported(tmp_path):
    days = {name: rows for name, rows in default_days().items()}
    folder = write(tmp_path / "d", days | {"2024-02-13": days[DAYS[0]]})
    (folder / "all_stage" / "2024-02-14.feather").touch()
    (folder / "all_stage" / "example.feather").touch()
    (folder / "seq_effective_50_dict" / f"{DAYS[1]}.pkl").write_bytes(b"")
    report = build(folder, tmp_path).report
    assert report["days"] == ["2024-02-13", *DAYS]
    assert report["empty_files"] == ["all_stage/2024-02-14.feather"]
    assert report["missing_days"] == ["2024-02-14", "2024-02-15"]
    assert report["days_without_history"] == [DAYS[1]]
    assert len(report["warnings"]) >= 2


def test_first_period_ends_on_february_4(tmp_path):
    days = default_days()
    early = dict(zip(("2024-02-02", "2024-02-03", "2024-02-04"), days.values(), strict=True))
    folder = write(tmp_path / "d", early | days)
    report = build(folder, tmp_path, period="first").report
    assert report["days"] == list(early)
    with pytest.raises(ValueError, match="three are needed"):
        recflow.inputs(write(tmp_path / "late"), RecFlowSettings(period="first"))


def test_missing_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="all_stage"):
        recflow.inputs(tmp_path / "nowhere", DEFAULTS)
    (tmp_path / "all_stage").mkdir()
    with pytest.raises(FileNotFoundError, match="seq_effective_50"):
        recflow.inputs(tmp_path, DEFAULTS)
    (tmp_path / "seq_effective_50").mkdir()
    with pytest.raises(ValueError, match="0 usable day"):
        recflow.inputs(tmp_path, DEFAULTS)


def test_alias_of_the_history_folder(tmp_path):
    folder = write(tmp_path / "d", histories={DAYS[0]: {0: history(event(10, NOON_MS - 9))}})
    (folder / "seq_effective_50_dict").rename(folder / "seq_effective_50")
    assert build(folder, tmp_path).splits["train"].batch.request.history_where.sum() == 1


@pytest.mark.parametrize("keep", [3, 200, -10])
def test_torn_feather(tmp_path, keep):
    folder = write(tmp_path / "d")
    file = folder / "all_stage" / f"{DAYS[1]}.feather"
    content = file.read_bytes()
    file.write_bytes(content[:keep])
    with pytest.raises(ValueError, match=r"2024-02-17.*delete it and download"):
        recflow.check(folder, DEFAULTS)


def test_feather_with_a_damaged_middle(tmp_path):
    folder = write(tmp_path / "d")
    file = folder / "all_stage" / f"{DAYS[1]}.feather"
    content = file.read_bytes()
    file.write_bytes(content[:100] + content[-3000:])
    with pytest.raises(ValueError, match=r"2024-02-17.*delete it and download"):
        build(folder, tmp_path)


@pytest.mark.parametrize("keep", [1, 60, -1])
def test_torn_pickle(tmp_path, keep):
    folder = write(tmp_path / "d", histories={DAYS[0]: {0: history(event(10, NOON_MS - 9))}})
    file = folder / "seq_effective_50_dict" / f"{DAYS[0]}.pkl"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"2024-02-16.pkl.*delete it and download"):
        build(folder, tmp_path)


class Evil:
    def __reduce__(self):
        return os.system, ("touch owned",)


@pytest.mark.parametrize("content", [Evil(), {1: Evil()}, {1: print}, {1: np.random.default_rng}])
def test_pickles_that_ask_for_code_are_refused(tmp_path, content, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write(tmp_path / "d")
    file = folder / "seq_effective_50_dict" / f"{DAYS[0]}.pkl"
    file.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"refused: .* is not allowed.*do not trust"):
        build(folder, tmp_path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_pickles_of_old_and_new_numpy(tmp_path, protocol):
    content = {np.int64(7): history(event(1, 5)), 8: {"realshow": np.zeros((0, 8), np.int64)}}
    raw = pickle.dumps(content, protocol)
    (tmp_path / "new.pkl").write_bytes(raw)
    loaded = files.load_pickle(tmp_path / "new.pkl")
    assert [type(key) for key in loaded] == [int, int]
    np.testing.assert_array_equal(loaded[7], content[7])
    if protocol == 3:  # names are plain text there, so an older numpy's can be written
        old = raw.replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray")
        assert old != raw
        (tmp_path / "old.pkl").write_bytes(old)
        np.testing.assert_array_equal(files.load_pickle(tmp_path / "old.pkl")[7], content[7])


def test_a_pickle_without_a_dictionary(tmp_path):
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(ValueError, match="holds a list, expected a dictionary"):
        files.load_pickle(tmp_path / "list.pkl")
