"""Vocabularies, and encoders that come back from disk as they were or not at all."""

import numpy as np
import pytest

from dnr_jax import sealed
from dnr_jax.data import encoders
from dnr_jax.data.encoders import Encoders, Vocabulary
from dnr_jax.json_files import DamagedError
from dnr_jax.types import FeatureSpec

SPEC = FeatureSpec(("user_id",), ("hour",), ("item_id",), ("item_id", "genre"), {"item_id": 5})
MADE = Encoders(
    spec=SPEC,
    size=50,
    history=20,
    vocabularies={
        "item_id": Vocabulary(np.array([7, 9, 2**62])),
        "genre": Vocabulary(np.array(["Children's", "Комедия"])),
        "author": Vocabulary(np.array([], np.int64), 64),
    },
    tables={"item": np.arange(10, dtype=np.int32).reshape(5, 2)},
    transforms={"edges": [0.1, 1 / 3], "offset": 28800},
)


def test_empty_vocabulary_and_missing_numbers():
    assert Vocabulary(np.array([], np.int64)).encode(np.array([3, 4])).tolist() == [1, 1]
    assert Vocabulary(np.array([3, 7])).encode(np.array([-1, 3, 7, 8])).tolist() == [1, 2, 3, 1]
    hashed = Vocabulary(np.array([], np.int64), 5).encode(np.arange(-1, 100))
    assert hashed[0] == 1
    assert set(hashed[1:]) == {2, 3, 4, 5, 6}


@pytest.mark.parametrize("first", [0, 5, -70, 2**62])
def test_many_values_are_encoded_as_few_are(first):
    words = Vocabulary(first + np.array([0, 1, 4, 9, 40]))
    raw = first + np.random.default_rng(0).integers(-20, 60, 300)
    raw[:3] = np.iinfo(np.int64).min, -1, np.iinfo(np.int64).max
    expected = [2 + words.keys.tolist().index(one) if one in words.keys else 1 for one in raw]
    assert words.encode(raw).tolist() == expected  # by a table of all integers between
    assert words.encode(raw.reshape(100, 3)).reshape(-1).tolist() == expected
    apart = [words.encode(raw[n : n + 2]) for n in range(0, 300, 2)]  # by search
    assert np.concatenate(apart).tolist() == expected


def test_words_are_looked_up_like_numbers():
    words = Vocabulary(np.array(["F", "M"]))
    assert words.encode(np.array(["M", "", "F", "Male"])).tolist() == [3, 1, 2, 1]


def test_what_is_saved_comes_back(tmp_path):
    MADE.save(tmp_path / "encoders")
    found = encoders.load(tmp_path / "encoders")
    assert found.spec == SPEC
    assert (found.size, found.history, found.transforms) == (50, 20, MADE.transforms)
    for name, words in MADE.vocabularies.items():
        np.testing.assert_array_equal(found.vocabularies[name].keys, words.keys)
        assert found.vocabularies[name].keys.dtype == words.keys.dtype
        assert found.vocabularies[name].buckets == words.buckets
    np.testing.assert_array_equal(found.tables["item"], MADE.tables["item"])
    MADE._replace(size=9).save(tmp_path / "encoders")  # a folder that is there stays
    assert encoders.load(tmp_path / "encoders").size == 50
    found.save(tmp_path / "copy")
    for file in (tmp_path / "encoders").iterdir():
        assert file.read_bytes() == (tmp_path / "copy" / file.name).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy", "encoders"]


def change_a_byte(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["keys.item_id.npy", "table.item.npy", "keys.genre.npy"])
@pytest.mark.parametrize(
    "harm", [change_a_byte, lambda f: f.unlink(), lambda f: f.write_bytes(b"")]
)
def test_damaged_arrays_are_refused(tmp_path, name, harm):
    MADE.save(tmp_path / "e")
    harm(tmp_path / "e" / name)
    with pytest.raises(DamagedError, match=rf"{name}.*delete its folder and run again"):
        encoders.load(tmp_path / "e")


def test_a_hostile_description_is_refused(tmp_path):
    MADE.save(tmp_path / "e")
    file = tmp_path / "e" / encoders.FILE
    content = sealed.read(file, encoders.KEYS)
    pickled = tmp_path / "e" / "keys.item_id.npy"
    np.save(pickled, np.array([{}], object), allow_pickle=True)
    content["vocabularies"]["item_id"]["sha256"] = sealed.digest(pickled)
    sealed.write(file, content)
    with pytest.raises(DamagedError, match="cannot be read"):
        encoders.load(tmp_path / "e")
    content["vocabularies"] = {"../e/keys.genre": content["vocabularies"]["genre"]}
    sealed.write(file, content)
    with pytest.raises(ValueError, match="cannot be the name of a file"):
        encoders.load(tmp_path / "e")
    for broken in ({"vocabularies": []}, {"vocabularies": {"a": 1}}, {"spec": {}}, {"size": None}):
        sealed.write(file, content | broken)
        with pytest.raises(DamagedError, match=r"encoders\.json differs from what was written"):
            encoders.load(tmp_path / "e")
    with pytest.raises(FileNotFoundError):
        encoders.load(tmp_path / "nowhere")


def test_integers_are_taken_from_what_json_and_frames_hold():
    assert [encoders.integer("x", v) for v in (3, np.int32(4), 5.0, None)] == [3, 4, 5, -1]
    assert encoders.integer("x", 2**63) == encoders.integer("x", -(2**64)) == -1
    for wrong in ("3", 2.5, True, [1], float("nan")):
        with pytest.raises(ValueError, match=r"request 0: age is .*: it must be an integer"):
            encoders.integer("request 0: age", wrong)
