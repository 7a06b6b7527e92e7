"""An earlier model's parameters on grown vocabularies: what it knew it scores to the same bits."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from factories import SIZES, SMALL, initial_params, make_batch, make_spec, make_task, quick_jit
from linear_reranker import LINEAR

from dnr_jax import settings
from dnr_jax.data.encoders import KNOWN, Encoders, Vocabulary
from dnr_jax.experiment import start
from dnr_jax.experiment.start import Start
from dnr_jax.nn.embeddings import row_offsets
from dnr_jax.rerankers import RERANKERS
from dnr_jax.types import apply

HASHED = "feedback"  # without a vocabulary


def encoders(keys):
    sizes = {name: Vocabulary(words).size for name, words in keys.items()}
    spec = make_spec()._replace(sizes=sizes | {HASHED: SIZES[HASHED]})
    words = {name: Vocabulary(values) for name, values in keys.items()}
    return Encoders(spec, 8, 5, words, {}, {})


OLD = {name: np.arange(0, 10 * (n - 2), 10) for name, n in SIZES.items() if name != HASHED}
# New values before, among and after the known ones, and none in one vocabulary.
NEW = {
    name: words if name == "gender" else np.union1d(words, [-5, 15, 10**6])
    for name, words in OLD.items()
}


def row_of(name, **knobs):
    entry = RERANKERS[name]
    known = {field.name for field in dataclasses.fields(entry.settings)}
    own = settings.read(
        entry.settings, {n: v for n, v in (SMALL | knobs).items() if n in known}, "test"
    )
    chosen, compute = SimpleNamespace(name=name, settings=own), SimpleNamespace(dtype="float32")
    return SimpleNamespace(key="row", reranker=chosen, compute=compute)


def card_of(row):
    own = settings.plain(row.reranker.settings)
    return {
        "reranker": {"name": row.reranker.name, **own},
        "dtype": "float32",
        "task": {"sizes": encoders(OLD).spec.sizes},
    }


def grown(row, batch, *, params=None):
    """Return the old model and its parameters, the new model, and the graft."""
    build = RERANKERS[row.reranker.name].build
    old, new = encoders(OLD), encoders(NEW)
    before = build(make_task(spec=old.spec), row.reranker.settings)
    items = {
        "item_popularity": np.zeros(new.spec.sizes["item"], np.float32),
        "item_vectors": np.ones((new.spec.sizes["item"], 4), np.float32),
    }
    task = make_task(spec=new.spec, **items)
    after = build(task, row.reranker.settings)
    if params is None:
        params = initial_params(before, batch)
    earlier = Start(card_of(row), jax.tree.map(np.asarray, params), old)
    return before, params, after, start.make_graft(earlier, row, after, task, new, batch)


def moved(batch):
    """Write the ids of the new encoders into a batch of the old ones."""
    old, new, spec = encoders(OLD), encoders(NEW), make_spec()

    def one(ids, names):
        columns = []
        for place, name in enumerate(names):
            column = np.asarray(ids[..., place])
            if name != HASHED:
                keys = old.vocabularies[name].keys
                raw = keys[np.maximum(column - KNOWN, 0)]
                known = new.vocabularies[name].encode(raw)
                column = np.where(column < KNOWN, column, known)
            columns.append(column)
        return np.stack(columns, axis=-1).astype(np.int32)

    request = batch.request
    return dataclasses.replace(
        request,
        user=one(request.user, spec.user),
        context=one(request.context, spec.context),
        history=one(request.history, spec.history),
        candidates=one(request.candidates, spec.item),
    )


def test_what_was_known_is_scored_to_the_same_bits_and_new_rows_are_fresh():
    batch, row = make_batch(), row_of("sasrec")
    before, params, after, graft = grown(row, batch)
    fresh = initial_params(after, batch, seed=1)
    found = quick_jit(graft.put)(fresh, graft.params)
    here, there = moved(batch), batch.request
    assert (np.asarray(here.candidates) != np.asarray(there.candidates)).any()
    old = quick_jit(lambda p, r: apply(before, p, r, batch.scores))(params, there)
    new = quick_jit(lambda p, r: apply(after, p, r, batch.scores))(found, here)
    np.testing.assert_array_equal(old, new)
    flat = jax.tree_util.tree_leaves_with_path
    offsets = row_offsets(encoders(NEW).spec)
    for (path, leaf), (_, first), rows in zip(flat(found), flat(fresh), graft.rows, strict=True):
        if rows is None:
            continue
        assert path[-1].key == "table"
        untouched = np.setdiff1d(np.arange(len(leaf)), rows[1])
        assert len(untouched) == 3 * sum(NEW[n] is not OLD[n] for n in NEW)
        np.testing.assert_array_equal(leaf[untouched], first[untouched])
        assert {offset for offset in offsets.values()} <= set(rows[1])  # padding of each stays


@pytest.mark.parametrize("name", ["caser", "irgan"])
def test_models_of_several_modules_can_grow(name):
    batch = make_batch()
    *_, graft = grown(row_of(name), batch)
    tables = [rows for rows in graft.rows if rows is not None]
    assert tables
    for _, now in tables:
        assert len(np.unique(now)) == len(now)


def test_a_model_that_is_built_of_its_catalogue_is_refused():
    with pytest.raises(ValueError, match=r"glorank cannot go on .* built from the vectors"):
        grown(row_of("glorank"), make_batch())


def test_a_parameter_that_is_no_table_of_features_is_refused_by_name(monkeypatch):
    monkeypatch.setitem(RERANKERS, "linear", LINEAR)
    said = r"linear cannot go on .* its parameter item \[40\], now \[43\], is not a table"
    with pytest.raises(ValueError, match=said):
        grown(row_of("linear"), make_batch(), params={"item": np.zeros(40), "slope": np.zeros(())})


def test_another_model_other_features_and_lost_values_are_refused():
    batch, row = make_batch(), row_of("sasrec")
    _, params, after, _ = grown(row, batch)
    old, new = encoders(OLD), encoders(NEW)
    earlier, task = Start(card_of(row), params, old), make_task(spec=new.spec)

    def graft(row=row, known=new, task=task):
        return start.make_graft(earlier, row, after, task, known, batch)

    with pytest.raises(ValueError, match=r"width is 16, was 8\): it can only continue with its"):
        graft(row_of("sasrec", width=16))
    lost = encoders(NEW | {"item": NEW["item"][3:]})
    with pytest.raises(ValueError, match="does not know all values of item of the earlier model"):
        graft(known=lost)
    other = make_task(spec=new.spec._replace(context=()))
    with pytest.raises(ValueError, match="has the context features none, the earlier model week"):
        graft(task=other)
