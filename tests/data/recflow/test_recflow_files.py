"""Files as the real ones may be: missing, empty, torn, hostile."""

import numpy as np
import polars as pl
import pytest
from recflow_cases import DAYS, DEFAULTS, NOON_MS, build, default_days, event, history, write

from dnr_jax.data import recflow
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


@pytest.mark.parametrize("other", [".parquet", ".feather"])
def test_two_files_of_one_day_are_refused(tmp_path, other):
    folder = write(tmp_path / "d")
    file = folder / "all_stage" / f"{DAYS[2]}.feather"
    file.with_suffix(".parquet").write_bytes(b"" if other == ".feather" else file.read_bytes())
    if other == ".feather":  # an empty placeholder is none
        assert len(recflow.inputs(folder, DEFAULTS)) == 6
        return
    with pytest.raises(ValueError, match=rf"two files of {DAYS[2]}.*feather and .*parquet"):
        recflow.inputs(folder, DEFAULTS)


def test_copies_beside_the_files_are_not_read(tmp_path):
    folder = write(tmp_path / "d", histories={DAYS[0]: {0: history(event(10, NOON_MS - 9))}})
    for kind, suffix in (("seq_effective_50_dict", ".pkl"), ("all_stage", ".feather")):
        file = folder / kind / f"{DAYS[0]}{suffix}"
        file.with_suffix(".bak").write_bytes(b"another content")
        file.with_suffix(f"{suffix}.old").write_bytes(b"another content")
    assert build(folder, tmp_path).splits["train"].batch.request.history_where.sum() == 1
    assert {file.suffix for file in recflow.inputs(folder, DEFAULTS)} == {".feather", ".pkl"}


BAD_COLUMNS = [
    ("user_id", pl.Series(["u1", "u2"]), r"user_id \(String\) holds 'u1' in row 0.*keep the map"),
    ("user_id", pl.Series([1, 2**63], dtype=pl.UInt64), r"\(UInt64\) holds 9223372036854775808"),
    ("video_id", pl.Series([1.0, 2.5]), r"video_id \(Float64\) holds 2\.5 in row 1"),
    ("age", pl.Series([1.0, 1e30]), r"age \(Float64\) holds 1e\+30"),
    ("rerank_pos", pl.Series([1.0, 0.5]), r"holds 0\.5 in row 1: it must hold 0 or 1"),
    ("effective_view", pl.Series([1.0, 0.9]), r"effective_view .* must hold 0 or 1"),
    ("rank_index", pl.Series(["3", "third"]), r"holds 'third' in row 1: it must hold numbers"),
    (
        "duration",
        pl.Series([[1], [2]]),
        r"is of type List\(Int64\): it must hold integers",
    ),
    ("request_timestamp", pl.Series([0, 1]).cast(pl.Datetime), r"is of type Datetime"),
]


@pytest.mark.parametrize(("name", "values", "said"), BAD_COLUMNS)
def test_values_that_would_be_read_as_others_are_named(tmp_path, name, values, said):
    folder = write(tmp_path / "d")
    file = folder / "all_stage" / f"{DAYS[1]}.feather"
    frame = pl.read_ipc(file.read_bytes())
    column = pl.concat([values, *[values[:1]] * (len(frame) - 2)]).alias(name)
    frame.with_columns(column).write_ipc(file)
    with pytest.raises(ValueError, match=said) as error:
        build(folder, tmp_path)
    assert str(file) in str(error.value)


@pytest.mark.parametrize("kind", [pl.Float64, pl.String, pl.UInt64, pl.Int32, pl.Int128])
def test_numbers_of_other_kinds_read_as_well(tmp_path, kind):
    plain = build(write(tmp_path / "plain"), tmp_path).splits["train"].batch.request
    kinds = {"user_id": kind, "video_id": kind, "realshow": kind, "effective_view": kind}
    other = build(write(tmp_path / "other", dtypes=kinds), tmp_path).splits["train"].batch.request
    np.testing.assert_array_equal(plain.candidates, other.candidates)
    np.testing.assert_array_equal(plain.user, other.user)


def test_a_truth_of_another_kind_is_named(tmp_path):
    folder = write(tmp_path / "d")
    (folder / "truth").mkdir()
    frame = pl.DataFrame({"request_id": [0], "video_id": [10], "utility": [0.5]})
    frame.write_ipc(folder / "truth" / f"{DAYS[0]}.feather")
    with pytest.raises(ValueError, match=r"2024-02-16\.feather is not the truth of a simulation"):
        build(folder, tmp_path)
