"""A run goes on where nothing that was worked on would have been different."""

import json

import pytest

from dnr_jax.io import config_file

ROW = {"label": "A", "train": {"epochs": 2}, "noise": None}
SAVED = {"seed": 0, "data": {"name": "recflow"}, "rows": {"a": ROW, "b": ROW}}


@pytest.fixture
def settle(tmp_path):
    """Settle a config against the saved one; return what the file holds afterwards."""

    def make(config, *, saved=SAVED, defaults=None, worked=("a", "b")):
        path = tmp_path / "config.json"
        path.write_text(saved if isinstance(saved, str) else json.dumps(saved))
        config_file.settle(path, config, defaults or {}, lambda row: row in worked)
        return json.loads(path.read_text())

    return make


def changed(**row):
    return SAVED | {"rows": {"a": ROW | row, "b": ROW}}


def test_the_same_config_leaves_the_file_alone(settle, tmp_path):
    assert settle(SAVED) == SAVED
    assert (tmp_path / "config.json").read_text() == json.dumps(SAVED)


def test_what_differs_is_named(settle):
    now = changed(train={"epochs": 3}) | {"data": {"name": "movielens"}}
    with pytest.raises(ValueError, match="another config") as error:
        settle(now)
    text = str(error.value)
    assert "config.data.name: saved 'recflow', now 'movielens'" in text
    assert "config.rows.a.train.epochs: saved 2, now 3" in text
    assert "seed" not in text
    assert "rows.b" not in text


def test_a_new_knob_must_have_its_default(settle):
    now = changed(train={"epochs": 2, "stream": 0}) | {"eval": {"k": 6}}
    usual = {"eval": {"k": 6}, "rows": {"a": {"train": {"epochs": 9, "stream": 0}}}}
    assert settle(now, defaults=usual) == now
    with pytest.raises(ValueError, match=r"a.train.stream: saved '\(absent\)', now 4"):
        settle(changed(train={"epochs": 2, "stream": 4}), defaults=usual)
    with pytest.raises(ValueError, match=r"config.eval.k: saved '\(absent\)', now 7"):
        settle(SAVED | {"eval": {"k": 7}}, defaults=usual)
    with pytest.raises(ValueError, match=r"config.eval.k: saved '\(absent\)', now 6"):
        settle(SAVED | {"eval": {"k": 6}})


def test_a_knob_that_is_gone_is_named(settle):
    with pytest.raises(ValueError, match=r"config.data.name: saved 'recflow', now '\(absent\)'"):
        settle({"seed": 0, "rows": SAVED["rows"]})


def test_a_section_in_place_of_none_differs(settle):
    with pytest.raises(ValueError, match=r"config.rows.a.noise: saved None"):
        settle(changed(noise={"name": "beta"}), defaults=changed(noise={"name": "beta"}))


def test_rows_of_one_side_do_not_matter_and_worked_ones_are_remembered(settle):
    other = SAVED | {"rows": {"c": ROW, "a": ROW}}
    kept = settle(other)
    assert list(kept["rows"]) == ["c", "a", "b"]
    back = SAVED | {"rows": {"b": ROW | {"label": "B"}}}
    with pytest.raises(ValueError, match=r"config.rows.b.label: saved 'A', now 'B'"):
        settle(back, saved=kept)


def test_a_row_without_work_may_change_or_go(settle):
    now = changed(label="new")
    assert settle(now, worked=("b",)) == now
    assert settle({**SAVED, "rows": {"c": ROW}}, worked=()) == {**SAVED, "rows": {"c": ROW}}


@pytest.mark.parametrize("saved", ["[1, 2]", "3", '{"rows": 3}', '{"rows": {"a": 3}}'])
def test_another_program_s_file_is_refused(settle, saved):
    with pytest.raises(ValueError, match=r"config.json is not a run's config: choose another"):
        settle(SAVED, saved=saved)
