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


def test_damaged_files_name_file_and_line(tmp_path):
    path = tmp_path / "v.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"v\.json is not JSON"):
        json_files.read(path)
    path.write_text('{}\n{"a"\n{}\n')
    with pytest.raises(ValueError, match=r"v\.json line 2"):
        json_files.read_lines(path)


@pytest.mark.parametrize(
    ("content", "kept"),
    [(b"{}\n{}\n", b"{}\n{}\n"), (b'{}\n{"a', b"{}\n"), (b'{"a', b""), (b"", b"")],
)
def test_torn_last_line_is_cut(tmp_path, content, kept):
    path = tmp_path / "v.jsonl"
    path.write_bytes(content)
    json_files.drop_torn_line(path)
    assert path.read_bytes() == kept


def test_lines_round_trip(tmp_path):
    path = tmp_path / "v.jsonl"
    json_files.append_lines(path, [{"a": 1}, {"a": float("nan")}])
    json_files.append_lines(path, [{"a": "é\n"}])
    records = [{"a": 1}, {"a": None}, {"a": "é\n"}]
    assert json_files.read_lines(path) == records
    json_files.write_lines(path, records[:1])
    assert json_files.read_lines(path) == records[:1]
