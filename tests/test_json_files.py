import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnr_jax import json_files

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=30, deadline=None)
@given(VALUES)
def test_any_value_becomes_strict_json(value):
    def refuse(constant):
        raise AssertionError(constant)

    text = json_files.encode(value)
    assert json.loads(text, parse_constant=refuse) == json_files.plain(value)


def test_nan_becomes_null(tmp_path):
    value = {
        "a": float("nan"),
        "b": (np.float32("inf"), 1),
        "c": np.array([1.5, np.nan]),
        "d": jnp.arange(2),
        3: Path("x"),
        "e": np.bool_(True),
    }
    json_files.write(tmp_path / "v.json", value)
    assert json_files.read(tmp_path / "v.json") == {
        "a": None,
        "b": [None, 1],
        "c": [1.5, None],
        "d": [0, 1],
        "3": "x",
        "e": True,
    }
    assert [p.name for p in tmp_path.iterdir()] == ["v.json"]


def test_floats_survive_exactly(tmp_path):
    json_files.write(tmp_path / "v.json", [0.1 + 0.2, np.float32(0.1)])
    assert json_files.read(tmp_path / "v.json") == [0.1 + 0.2, float(np.float32(0.1))]


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="is a set"):
        json_files.encode({"a": {1}})


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "v.json"
    json_files.write(path, 1)
    with pytest.raises(ValueError, match="JSON cannot hold"):
        json_files.write(path, object())
    assert json_files.read(path) == 1


KEYS = ("fingerprint", "data")


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"{", "is not JSON"),
        (b"", "is not JSON"),
        (b"\0" * 40, "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1]", "holds a list, not an object"),
        (b"null", "holds a NoneType, not an object"),
        (b'{"data": 1}', "lacks 'fingerprint'"),
        (None, "is a folder where a file should be"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong_and_the_cure(tmp_path, content, wrong):
    path = tmp_path / "v.json"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(json_files.DamagedError) as error:
        json_files.read(path, keys=KEYS, cure="ask Ann")
    assert str(error.value).startswith(f"{path} {wrong}")
    assert str(error.value).endswith(": ask Ann")


def test_a_file_that_is_not_there_is_no_damage(tmp_path):
    with pytest.raises(FileNotFoundError):
        json_files.read(tmp_path / "v.json", keys=KEYS)
    assert json_files.read_lines(tmp_path / "v.jsonl") == []


@pytest.mark.parametrize("bad", [b'{"a"', b"3", b'{"b": 1}', b"\0\0", b""])
def test_a_line_that_is_no_record_is_left_out_with_a_warning(tmp_path, bad, caplog):
    path = tmp_path / "v.jsonl"
    path.write_bytes(b'{"a": 1}\n' + bad + b'\n{"a": 2}\n')
    assert json_files.read_lines(path, keys=("a",)) == [{"a": 1}, {"a": 2}]
    assert f"{path}: line 2 cannot be read" in caplog.text
    json_files.mend_lines(path, keys=("a",))
    caplog.clear()
    json_files.append_lines(path, [{"a": 3}])
    assert json_files.read_lines(path, keys=("a",)) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert not caplog.text


@pytest.mark.parametrize(
    ("content", "kept"),
    [(b"{}\n{}\n", b"{}\n{}\n"), (b'{}\n{"a', b"{}\n"), (b'{"a', b""), (b"", b"")],
)
def test_torn_last_line_is_cut_without_a_word(tmp_path, content, kept, caplog):
    path = tmp_path / "v.jsonl"
    path.write_bytes(content)
    json_files.mend_lines(path)
    assert path.read_bytes() == kept
    assert not caplog.text


def test_a_zeroed_file_is_no_torn_line(tmp_path, caplog):
    path = tmp_path / "v.jsonl"
    path.write_bytes(b"\0" * 300)
    json_files.mend_lines(path)
    assert path.read_bytes() == b""
    assert "line 1 cannot be read" in caplog.text


def test_lines_round_trip(tmp_path):
    path = tmp_path / "v.jsonl"
    json_files.append_lines(path, [{"a": 1}, {"a": float("nan")}])
    json_files.append_lines(path, [{"a": "é\n"}])
    records = [{"a": 1}, {"a": None}, {"a": "é\n"}]
    assert json_files.read_lines(path) == records
    json_files.write_lines(path, records[:1])
    assert json_files.read_lines(path) == records[:1]
