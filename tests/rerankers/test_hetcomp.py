"""HetComp: which stage trains which group, what it begins from, and what it learns from."""

import chex
import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_contract import model_of

from dnr_jax.nn.losses import bce
from dnr_jax.rerankers import build

STAGES = ["teachers_1", "teachers_2", "student_1", "student_2", "student"]


def test_teachers_are_trained_before_students():
    assert [(stage.name, stage.groups) for stage in model_of("hetcomp").reranker.stages] == [
        (name, (name,)) for name in STAGES
    ]


def test_each_stage_begins_where_its_kind_has_got_to():
    params = {name: number for number, name in enumerate(STAGES)}
    for stage in model_of("hetcomp").reranker.stages:
        begun = params if stage.begin is None else stage.begin(params)
        source = {"teachers_2": 0, "student_2": 2, "student": 3}.get(stage.name)
        expected = params[stage.name] if source is None else source
        assert begun == params | {stage.name: expected}


def test_all_of_a_kind_start_alike():
    model = model_of("hetcomp")
    params = model.reranker.init(jax.random.key(0), model.batch.request, model.batch.scores)
    for kind, others in (("teachers_1", ["teachers_2"]), ("student", ["student_1", "student_2"])):
        for other in others:
            chex.assert_trees_all_equal(params[kind], params[other])


def test_teachers_learn_by_the_sum_of_their_cross_entropies():
    model = model_of("hetcomp")
    expected = 0.0
    for name in ("gru4rec", "sasrec", "prm"):
        teacher = build(name, factories.make_task(), **factories.SMALL)
        own = model.params["teachers_1"][name]
        memory = teacher.encode(own, model.batch.request)
        logits = teacher.decode(own, memory, model.batch.scores)
        expected += float(bce(logits, model.batch.labels, model.batch.weights))
    found = factories.quick_jit(model.reranker.stages[0].loss)(model.params, model.batch)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_last_snapshot_teaches_last():
    """The fine loss depends on the last teachers and on no others."""
    model = model_of("hetcomp")
    loss = factories.quick_jit(model.reranker.stages[-1].loss)
    plain = float(loss(model.params, model.batch))
    for group, matters in (("teachers_1", False), ("teachers_2", True)):
        upside_down = jax.tree.map(jnp.negative, model.params[group])
        other = float(loss(model.params | {group: upside_down}, model.batch))
        assert (other != plain) == matters


def test_no_snapshot_is_refused():
    with pytest.raises(ValueError, match="snapshots is 0: it must be 1 or more"):
        build("hetcomp", factories.make_task(), snapshots=0)
