"""Pickles of the real files are read, torn ones named, hostile ones refused."""

import collections
import os
import pickle
import pickletools

import numpy as np
import pytest
from recflow_cases import DAYS, NOON_MS, build, event, history, write

from dnr_jax.data.recflow import memo, pickles


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
    loaded = pickles.load_pickle(tmp_path / "new.pkl")
    assert [type(key) for key in loaded] == [int, int]
    np.testing.assert_array_equal(loaded[7], content[7])
    if protocol == 3:  # names are plain text there, so an older numpy's can be written
        old = raw.replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray")
        assert old != raw
        (tmp_path / "old.pkl").write_bytes(old)
        np.testing.assert_array_equal(pickles.load_pickle(tmp_path / "old.pkl")[7], content[7])


def test_a_pickle_without_a_dictionary(tmp_path):
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(ValueError, match="holds a list, expected a dictionary"):
        pickles.load_pickle(tmp_path / "list.pkl")


class Calls:
    """Pickles as a call of a function that `find_class` knows, with arguments of a choice."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


STRUCTURE = np.dtype([("a", "i8"), ("b", "O")])
HOSTILE = [
    np.array([{}], object),
    np.zeros(2, STRUCTURE),
    np.zeros(2, [("a", "i8")]),
    np.array(["a"]),
    np.array([b"a"]),
    np.datetime64("2024-02-18"),
    np.complex64(1),
    Calls(np.dtype, "O"),
    Calls(np.dtype, "V8", False, True),
    Calls(np.dtype, "i8", False, True, state=(3, "<", None, ("a",), {}, 8, 1, 27)),
    Calls(np.ndarray, (10**13,)),
    Calls(pickle.codecs.encode, "x" * 9, "zlib"),
]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:40])
def test_only_arrays_of_plain_numbers_are_made(tmp_path, value):
    file = tmp_path / "hostile.pkl"
    file.write_bytes(pickle.dumps({1: value}, 4))
    with pytest.raises(ValueError, match=r"hostile\.pkl"):
        pickles.load_pickle(file)


def test_an_array_that_is_asked_for_without_content_is_empty(tmp_path):
    call = Calls(np._core.multiarray._reconstruct, np.ndarray, (10**13,), b"b")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({1: call}, 4))
    assert pickles.load_pickle(tmp_path / "a.pkl")[1].size == 0


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(3, dtype=">i4"),
        np.array([True, False]),
        np.zeros((0, 8), np.int64),
        np.array(5),
    ],
    ids=str,
)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_come_back_as_they_were(tmp_path, array, protocol):
    content = {np.int32(3): collections.defaultdict(list, a=array, b=np.float32(2.5))}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({3: dict(content[3])}, protocol))
    found = pickles.load_pickle(tmp_path / "a.pkl")[3]
    np.testing.assert_array_equal(found["a"], array)
    assert found["a"].dtype == array.dtype
    assert found["b"] == np.float32(2.5)


@pytest.mark.parametrize("key", ["7", (1, 2), None, 2.5, True])
def test_keys_that_are_no_requests_are_named(tmp_path, key):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({key: np.zeros(3)}))
    with pytest.raises(ValueError, match=r"a\.pkl has a key .*, expected numbers of requests"):
        pickles.load_pickle(tmp_path / "a.pkl")


def test_a_pickle_that_asks_for_too_much_memory(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04\x8e" + (2**60).to_bytes(8, "little") + b"x.")
    with pytest.raises(ValueError, match=r"a\.pkl cannot be read"):
        pickles.load_pickle(tmp_path / "a.pkl")


FAR = (2**32 - 1).to_bytes(4, "little")
HOSTILE = {
    "long": b"\x80\x03}r" + FAR + b".",
    "text": b"}p99999999999\n.",
    "after data of every form": pickle.dumps([b"x" * 300, "r" * 300, 2**90, 1.5], 4)[:-1]
    + b"cnumpy\nndarray\nr"
    + FAR
    + b".",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_memo_that_no_file_of_this_size_can_fill_is_refused(tmp_path, content):
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pkl is refused: place [0-9,]+ of a memo in"):
        pickles.load_pickle(tmp_path / "a.pkl")


@pytest.mark.parametrize("protocol", range(6))
def test_the_walk_over_opcodes_is_that_of_pickletools(protocol):
    far = b"r" + FAR  # as data, where it puts nothing into a memo
    objects = [
        far * 99,
        "r" * 70_000,
        2**90,
        -1,
        1.5,
        True,
        None,
        {1: {2}},
        frozenset((3,)),
        np.int8,
    ]
    for value in (objects, [*objects, collections.Counter(), bytearray(b"xyz"), "line\nline"]):
        raw = pickle.dumps([value, np.arange(400), value[1]], protocol)
        as_text = [place for op, place, _ in pickletools.genops(raw) if op.name == "PUT"]
        assert memo._largest(raw) == max(as_text, default=0)
        # Walked to the end: what stands there is seen.
        assert memo._largest(raw[:-1] + far + b".") == 2**32 - 1
