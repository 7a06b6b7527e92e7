"""Readers of the three layouts, their errors, and the published core."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from interaction_cases import interactions

from dnr_jax.data.interactions import k_core
from dnr_jax.data.movielens import reader

REAL = Path(os.environ.get("DNR_TEST_DATA", Path(__file__).parents[3].parent / "shared" / "data"))


def real(name):
    if not (REAL / name).exists():
        pytest.skip(f"real data {name} is not in {REAL} (set DNR_TEST_DATA)")
    return REAL / name


def write(path, text):
    path.write_bytes(text.encode("latin-1"))
    return path


def test_reads_u_data_with_its_companions(tmp_path):
    write(tmp_path / "u.data", "2\t10\t5\t300\n1\t11\t2\t200\n1\t10\t3\t100\n1\t12\t4\t200\n")
    write(tmp_path / "u.user", "1|24|M|technician|85711\n2|53|F|other|T8H1N\n")
    flags = ["0"] * 19
    flags[5] = flags[7] = "1"
    write(tmp_path / "u.item", f"10|Café: noir (1995)|01-Jan-1995||url|{'|'.join(flags)}\n")
    found = reader.read(tmp_path, positive_rating=3)
    np.testing.assert_array_equal(found.user, [1, 1, 1, 2])
    np.testing.assert_array_equal(found.item, [10, 11, 12, 10])  # a tie keeps the file's order
    np.testing.assert_array_equal(found.label, np.float32([1, 0, 1, 1]))
    assert found.label.dtype == np.float32
    assert found.user_features["gender"] == {1: "M", 2: "F"}
    assert found.user_features["age"] == {1: "24", 2: "53"}
    assert found.item_features == {"genre": {10: "Comedy"}}
    names = [p.name for p in reader.inputs(tmp_path)]
    assert names == ["u.data", "u.user", "u.item"]


def test_reads_ratings_dat_with_its_companions(tmp_path):
    write(tmp_path / "ratings.dat", "1::7::4::20\r\n1::8::3::10\r\n")
    write(tmp_path / "users.dat", "1::F::25::0::02460\n")
    write(tmp_path / "movies.dat", "7::Misérable: a\x85 tale (1998)::Drama|War\n8::B (1990)::War\n")
    found = reader.read(tmp_path, positive_rating=4)
    np.testing.assert_array_equal(found.item, [8, 7])
    np.testing.assert_array_equal(found.label, [0, 1])
    assert found.item_features["genre"] == {7: "Drama", 8: "War"}
    assert found.user_features["occupation"] == {1: "0"}


@pytest.mark.parametrize("packed", [False, True])
def test_reads_sequences_as_positives_in_order(tmp_path, packed):
    text = b"5 3 9\n4\n"
    path = tmp_path / ("sequences.txt.gz" if packed else "sequences.txt")
    path.write_bytes(gzip.compress(text) if packed else text)
    found = reader.read(path, positive_rating=3)
    np.testing.assert_array_equal(found.user, [1, 1, 1, 2])
    np.testing.assert_array_equal(found.item, [5, 3, 9, 4])
    np.testing.assert_array_equal(found.time, [0, 1, 2, 0])
    assert found.label.all()


def test_repeated_pairs_keep_the_earliest_and_are_counted(tmp_path):
    write(tmp_path / "u.data", "1\t10\t5\t300\n1\t10\t1\t100\n1\t11\t5\t200\n")
    found = reader.read(tmp_path, positive_rating=3)
    np.testing.assert_array_equal(found.label, [0, 1])
    assert found.report["repeated_pairs_dropped"] == 1


def test_u_data_may_mix_tabs_and_blanks(tmp_path):
    write(tmp_path / "u.data", "1\t10\t5\t300\n1\t11  4  301\n")
    np.testing.assert_array_equal(reader.read(tmp_path, positive_rating=3).item, [10, 11])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("u.data", "", "empty"),
        ("u.data", "\n\n", "empty"),
        ("u.data", "1\t2\t3\t4\n1\t2\t3\n", r"line 2: found 3 fields .* expected 4"),
        ("ratings.dat", "1::2::3::4\n1::2::3\n", r"line 2: found 3 fields .* expected 4"),
        ("ratings.dat", "1::2::3::4\n1::x::3::4\n", r"line 2: found 'x' as item"),
        ("ratings.dat", "1::2::nought::4\n", r"line 1: found 'nought' as rating"),
        ("ratings.dat", "1::2::5::4\n1::2::6::4\n", r"line 2: rating 6.0 is out of range"),
        ("ratings.dat", "1::2::nan::4\n", r"line 1: rating nan is out of range"),
        ("sequences.txt", "1 2\n3 b\n", r"line 2: expected item ids"),
        ("sequences.txt", "1 7 8\n2 9\n3 7\n", r"begin with 1, 2, 3 .* which number users"),
        ("sequences.txt", "0 7 8\n1 9\n2 7\n", r"begin with 0, 1, 2 .* delete the first number"),
        (
            "u.data",
            "user item rating time\n1\t2\t3\t4\n",
            r"'rating' as rating.* a header, delete it",
        ),
        ("u.data", "a7\t2\t3\t4\na8\t2\t3\t4\n", r"'a7' as user.*: number the users, and keep"),
        ("u.data", "9223372036854775808\t2\t3\t4\n1\t2\t3\t4\n", r"found '9223372036854775808'"),
        ("ratings.dat", "1::2::3::978300760\n1::3::3::978300760000\n", r"mixes times in seconds"),
    ],
)
def test_bad_files_name_file_line_and_expectation(tmp_path, name, text, message):
    path = write(tmp_path / name, text)
    with pytest.raises(ValueError, match=message) as error:
        reader.read(tmp_path, positive_rating=3)
    assert str(path) in str(error.value)


def test_torn_gzip_is_one_clear_error(tmp_path):
    path = tmp_path / "sequences.txt.gz"
    whole = gzip.compress(b"1 2 3 4 5 6\n" * 50)
    middle = len(whole) // 2
    for content in (whole[:-12], b"x" + whole, whole[:middle] + b"\xff\xff" + whole[middle:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="torn gzip"):
            reader.read(path, positive_rating=3)


def test_ties_are_ordered_by_the_file_or_by_a_seed(tmp_path):
    """The draw is a rating's own: it does not follow the file's order, nor the item's number."""
    rows = [f"1\t{item}\t5\t{300 + item // 20}\n" for item in range(60)]

    def items(lines, seed):
        write(tmp_path / "u.data", "".join(lines))
        return reader.read(tmp_path, positive_rating=3, tie_seed=seed).item.tolist()

    assert items(rows, 0) == list(range(60))
    assert items(rows, 1) == items(rows[::-1], 1) != items(rows, 2)
    assert items(rows, 1) not in (items(rows, 0), items(rows[::-1], 0))
    assert [item // 20 for item in items(rows, 1)] == [0] * 20 + [1] * 20 + [2] * 20


def test_marks_of_editors_are_known(tmp_path):
    (tmp_path / "u.data").write_bytes(b"\xef\xbb\xbf35\t10\t5\t300\n")
    assert reader.read(tmp_path, positive_rating=3).user.tolist() == [35]
    (tmp_path / "u.data").write_bytes("35\t10\t5\t300\n".encode("utf-16"))
    with pytest.raises(ValueError, match="is in UTF-16: save it as plain text"):
        reader.read(tmp_path, positive_rating=3)


def test_milliseconds_are_read_as_such_and_said(tmp_path):
    lines = ["1\t10\t5\t978300760900\n", "1\t11\t5\t978300760100\n"]
    write(tmp_path / "u.data", "".join(lines))
    found = reader.read(tmp_path, positive_rating=3)
    assert found.item.tolist() == [11, 10]  # ordered to the millisecond
    assert found.time.tolist() == [978300760] * 2
    assert found.report["warnings"] == ["u.data: times were read as milliseconds"]


def test_a_csv_of_ratings_is_named_with_the_way(tmp_path):
    write(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp\n")
    with pytest.raises(FileNotFoundError, match=r"ratings\.csv is not read: delete its header"):
        reader.inputs(tmp_path)


def test_missing_paths_name_what_is_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such path.*ratings\.dat"):
        reader.read(tmp_path / "absent", positive_rating=3)
    write(tmp_path / "other.csv", "1")
    with pytest.raises(FileNotFoundError, match=r"u\.data.*other\.csv"):
        reader.inputs(tmp_path)
    with pytest.raises(ValueError, match="known names"):
        reader.inputs(tmp_path / "other.csv")


def test_full_movielens_1m_must_give_its_published_core(monkeypatch):
    user, item = np.divmod(np.arange(400), 20)
    made = interactions(user, item)
    made = made._replace(report={"positive_rating": 3.0, "rows": 400})
    reader.check_published(k_core(made, core=20))
    monkeypatch.setattr(reader, "FULL_ROWS", 400)
    with pytest.raises(ValueError, match=r"\(20, 20, 400\) and 400 positives, published"):
        reader.check_published(k_core(made, core=20))
    monkeypatch.setattr(reader, "PUBLISHED", (20, 20, 400))
    with pytest.raises(ValueError, match="published"):
        reader.check_published(k_core(made, core=20))
    reader.check_published(k_core(made, core=19))
    monkeypatch.setattr(reader, "PUBLISHED_POSITIVES", {3.0: 400})
    reader.check_published(k_core(made, core=20))


def test_real_movielens_100k_20_core():
    found = reader.read(real("ml-100k"), positive_rating=3)
    assert len(found.user) == 100_000
    core = k_core(found, core=20)
    assert (len(np.unique(core.user)), len(np.unique(core.item))) == (917, 937)


def test_real_movielens_1m_sequences():
    found = reader.read(real("ml-1m-sequences"), positive_rating=3)
    assert (len(found.user), len(np.unique(found.user))) == (987_019, 6_040)
    assert len(np.unique(found.item)) == 3_416
