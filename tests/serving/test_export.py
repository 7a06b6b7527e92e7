"""An exported model ranks as it did, in a process that has jax and numpy but not this package."""

import json
import shutil
import subprocess
import sys
from datetime import datetime

import jax
import numpy as np
import pytest
from factories import SMALL, initial_params, make_batch, make_task
from jax import export
from served import ALONE, elsewhere, groups, raw

import dnr_jax
from dnr_jax import rerankers
from dnr_jax.rerankers import RERANKERS
from dnr_jax.serving import exported_loader, exporting
from dnr_jax.types import rank

REQUESTS = [
    {
        "user_id": 3,
        "u_city": "c1",
        "history": [3, 5, -7],
        "items": [
            {"item_id": 3, "i_tags": [1, 99]},
            {"item_id": 5, "i_price": 2.5},
            {"item_id": -7},
        ],
        "scores": [1e6, 1e6 + 9, 1e6 + 4],
    },
    {"items": [{"item_id": n} for n in range(20)], "scores": list(range(20))},  # longer than usual
]

ARRAYS = """
import numpy as np
model, items = load.Model(), [{"item_id": n} for n in range(5)]
mine, theirs = ([{"items": items, "scores": form(range(5))}] for form in (list, np.array))
print(np.array_equal(model.scores(mine)[0], model.scores(theirs)[0]))
"""


def test_it_ranks_as_the_model_does_where_the_package_cannot_be_imported(
    packed, exported, candidates
):
    requests = [*REQUESTS, *(raw(own) for own in groups(candidates))]
    scores, ranked = elsewhere(exported, requests)
    model = dnr_jax.load(packed)
    for mine, theirs in zip(model.scores(requests), scores, strict=True):
        np.testing.assert_allclose(theirs, mine, atol=1e-6)
    assert ranked == model.rank(requests)


def test_scores_may_be_arrays(exported):
    """In this process: JSON of another one has no arrays."""
    code = ALONE.split("model, requests =")[0] + ARRAYS
    done = subprocess.run(
        [sys.executable, "-c", code, str(exported)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True\n"


FAULTY = """
model, items = load.Model(), [{"item_id": n} for n in range(3)]
good = {"items": items, "scores": [1, 2, 3]}
def said(*requests):
    try:
        return model.scores(list(requests))
    except ValueError as error:
        return str(error)
lists = [0.1, 0.2], [1, 2, float("nan")], [1, 2, float("inf")], [1, 2, None], [1, 2, 1e300]
lists += [1, 2, -1e39], ["1", "2", "3"], "123", [1, [2], 3], [1, 2, 10**400], 7
bad = *({"items": items, "scores": own} for own in lists), None, 3, {**good, "histroy": []}
bad += {"scores": []}, {"items": []}, {"items": 3}, {"items": None}
# Two wrong lengths that together are right.
pair = [{"items": items, "scores": own} for own in ([0.1, 0.2], [1, 2, 3, 4])]
print(json.dumps([said(), said(*pair), *(said(good, one) for one in bad)]))
"""


def test_a_faulty_request_is_one_error_with_its_number(exported):
    code = ALONE.split("model, requests =")[0] + FAULTY
    done = subprocess.run(
        [sys.executable, "-c", code, str(exported)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    none, pair, *bad = json.loads(done.stdout)
    assert none == []
    assert pair.startswith("request 0: scores are [0.1, 0.2]: give 3 finite numbers, one per item")
    scores, others = bad[:11], bad[11:]
    for said in scores:
        assert said.startswith("request 1: scores are ")
        assert ": give 3 finite numbers, one per item" in said
    known = "c_weekday, history, items, scores, u_city, user_id"
    assert others == [
        "request 1 is a NoneType: it must be a mapping",
        "request 1 is a int: it must be a mapping",
        f"request 1 has an unknown key 'histroy': use only {known}",
        "request 1: items are None: give a list of one item or more",
        "request 1: items are []: give a list of one item or more",
        "request 1: items are 3: give a list of one item or more",
        "request 1: items are None: give a list of one item or more",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "export.json is missing: copy the folder again"),
        ("", "export.json is damaged: copy the folder again"),
        ('{"sha256": {"prog', "export.json is damaged: copy the folder again"),
        ("[]", "export.json is damaged: copy the folder again"),
        ('{"sha256": {"program.bin": "0"}}', "program.bin is missing: copy the folder again"),
    ],
)
def test_a_lost_or_torn_description_is_damage_too(tmp_path, monkeypatch, content, said):
    monkeypatch.setattr(exported_loader, "HERE", tmp_path)
    if content is not None:
        (tmp_path / "export.json").write_text(content)
    with pytest.raises(ValueError, match=said):
        exported_loader.Model()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("", "request 1 has no 'scores': this model needs one per item"),
        ("program.bin", "program.bin is damaged: copy the folder again"),
        ("model/parameters.npz", "parameters.npz is damaged: copy the folder again"),
        ("model/encoders/keys.item_id.npy", "keys.item_id.npy is damaged: copy the folder again"),
        ("model/encoders/encoders.json", "encoders.json is damaged: copy the folder again"),
    ],
)
def test_what_an_artefact_cannot_score_is_an_error(exported, tmp_path, damage, said):
    folder = shutil.copytree(exported, tmp_path / "artefact")
    if damage:
        content = bytearray((folder / damage).read_bytes())
        content[len(content) * 7 // 10] ^= 1
        (folder / damage).write_bytes(content)
    bare = {"items": REQUESTS[0]["items"]}
    command = [sys.executable, "-c", ALONE, str(folder)]
    given = json.dumps([REQUESTS[0], bare])
    done = subprocess.run(command, input=given, capture_output=True, text=True)
    assert done.returncode == 1
    assert said in done.stderr.splitlines()[-1]


def test_the_artefact_says_what_it_is_and_holds_the_model(packed, exported):
    found = {path.name for path in exported.iterdir()} - {"__pycache__"}  # of whoever has used it
    assert found == {
        "load.py",
        "encoder.py",
        "raw_values.py",
        "program.bin",
        "export.json",
        "model",
    }
    about = json.loads((exported / "export.json").read_text())
    assert about["platforms"] == ["cpu", "cuda", "tpu"]
    assert about["jax"] == jax.__version__
    assert datetime.fromisoformat(about["exported"]).tzinfo is not None
    assert "6 months" in about["window"]
    model, again = dnr_jax.load(packed), dnr_jax.load(exported / "model")
    for mine, theirs in zip(model.scores(REQUESTS), again.scores(REQUESTS), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_command_and_what_it_refuses(call, packed, exported, tmp_path, monkeypatch):
    code, _, err = call("export", packed, "--out", exported)
    assert code == 1
    assert err == f"error: {exported} exists already: choose another name, or --overwrite\n"
    code, _, err = call("export", packed, "--out", packed, "--overwrite")
    assert "is no exported model, and not replaced" in err
    monkeypatch.setattr(exporting.program, "difference", lambda *_: 1e-3)
    monkeypatch.setattr(exporting.program, "lower", lambda _: Lowered())
    monkeypatch.setattr(exporting.jax_export, "deserialize", lambda _: None)
    code, _, err = call("export", packed, "--out", tmp_path / "model")
    assert code == 1
    assert "computes scores that differ by 1.0e-03 from the model's" in err
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(exporting.program, "difference", lambda *_: 0.0)
    code, said, err = call("export", packed, "--out", tmp_path / "model")
    assert code == 0, err
    assert "prm for cpu, cuda, tpu, written by jax" in said
    assert said.endswith(f"dnr-jax export {tmp_path / 'model'}/model --out NEW\n")
    with pytest.raises(ValueError, match=r"an exported one, and the model in it is .*/model$"):
        dnr_jax.load(tmp_path / "model")


class Lowered:
    def serialize(self):
        return b"program"


def test_models_of_other_data_sets_are_refused(packed, tmp_path, monkeypatch):
    model = dnr_jax.load(packed)
    other = dnr_jax.Model(model.card | {"data": {"name": "recflow"}}, {}, model.encoders, None)
    monkeypatch.setattr(exporting, "load", lambda *_: other)
    with pytest.raises(ValueError, match=r"trained on recflow.* only models .* table are exported"):
        exporting.export(packed, None, tmp_path / "model")


# Those that read a size where it could be a symbol; `benchmarks.exports` tries all.
@pytest.mark.parametrize("name", ["dcdr", "diffurec", "glorank", "mmr", "pier"])
def test_a_model_needs_to_know_neither_batch_nor_list(name):
    batch, entry = make_batch(), RERANKERS[name]
    knobs = {k: v for k, v in SMALL.items() if k in entry.settings.__dataclass_fields__}
    reranker = rerankers.build(name, make_task(), **knobs)
    params = initial_params(reranker, batch) if entry.trains else {}
    b, n = export.symbolic_shape("b, n", constraints=["n >= 3"])

    def open_shape(path, leaf):
        word = jax.tree_util.keystr(path)
        lists = word in (".candidates", ".where", "")
        shape = (b, n, *leaf.shape[2:]) if lists else (b, *leaf.shape[1:])
        return jax.ShapeDtypeStruct(shape, leaf.dtype)

    request, scores = (
        jax.tree_util.tree_map_with_path(open_shape, part) for part in (batch.request, batch.scores)
    )
    found = jax.eval_shape(lambda *given: rank(reranker, params, *given), request, scores)
    assert found.shape == (b, n)
