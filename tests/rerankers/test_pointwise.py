"""What models that score each candidate by itself must hold, and GRU4Rec against PyTorch."""

from functools import cache

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax import types
from dnr_jax.rerankers import build

GRU4REC = {"width": 8, "dropout": 0.0, "score_entry": "none", "score_place": "late"}
KNOBS = {
    "gru4rec": GRU4REC,
    "sasrec": GRU4REC | {"history_layers": 2, "heads": 2, "feed_forward": 8},
}
BATCH = factories.make_batch(seed=5, T=5)


@cache
def model(name, **knobs):
    """Build a model of large random parameters and compile its logits."""
    reranker = build(name, spec=factories.make_spec(), **(KNOBS[name] | knobs))
    shapes = jax.eval_shape(reranker.init, jax.random.key(0), BATCH.request, BATCH.scores)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: jnp.asarray(0.5 * rng.normal(size=s.shape), s.dtype), shapes)
    score = factories.quick_jit(lambda r, x: types.apply(reranker, params, r, x))
    return params, score


@pytest.fixture(params=sorted(KNOBS))
def name(request):
    return request.param


def test_a_candidate_does_not_see_the_others(name):
    score = model(name)[1]
    ids = BATCH.request.candidates
    other = BATCH.request.replace(candidates=ids.at[:, 1:].set(jnp.roll(ids[:, 1:], 1, axis=0)))
    both = BATCH.request.where[:, :1]
    np.testing.assert_allclose(
        jnp.where(both, score(other, BATCH.scores)[:, :1], 0),
        jnp.where(both, score(BATCH.request, BATCH.scores)[:, :1], 0),
        rtol=1e-5,
        atol=1e-5,
    )


def test_the_order_of_events_matters(name):
    score = model(name)[1]
    full = BATCH.request.replace(history_where=jnp.ones_like(BATCH.request.history_where))
    turned = full.replace(history=full.history[:, ::-1])
    assert float(jnp.abs(score(full, BATCH.scores) - score(turned, BATCH.scores)).max()) > 1e-3


def test_without_scores_it_is_an_inner_product_that_reads_no_score(name):
    score = model(name)[1]
    np.testing.assert_array_equal(
        score(BATCH.request, BATCH.scores), score(BATCH.request, 1 - BATCH.scores)
    )


@pytest.mark.parametrize("entry", ["add", "concatenate"])
def test_late_linear_scores_are_one_slope(name, entry):
    score = model(name, score_entry=entry, score_place="late_linear")[1]
    zero, half, one = (
        score(BATCH.request, jnp.full_like(BATCH.scores, x)) for x in (0.0, 0.5, 1.0)
    )
    np.testing.assert_allclose(half - zero, one - half, atol=1e-4)
    slopes = (one - zero)[BATCH.request.where]
    np.testing.assert_allclose(slopes, slopes[0], atol=1e-4)
    assert abs(float(slopes[0])) > 1e-3


def test_early_weight_of_zero_silences_an_item(name):
    score = model(name, score_entry="weight", score_place="early")[1]
    logits = score(BATCH.request, jnp.zeros_like(BATCH.scores))
    np.testing.assert_allclose(jnp.where(BATCH.request.where, logits, 0), 0, atol=1e-6)


def test_gru4rec_is_torch_gru_on_the_trimmed_history():
    torch = pytest.importorskip("torch")
    params, score = model("gru4rec")
    logits = score(BATCH.request, BATCH.scores)
    gru = torch.nn.GRU(8, 8, batch_first=True)
    own = {k: np.array(v) for k, v in params["recurrent"].items() if k != "input"}
    inputs = jax.tree.map(np.array, params["recurrent"]["input"])
    with torch.no_grad():
        gru.weight_ih_l0.copy_(torch.tensor(inputs["kernel"].T))
        gru.bias_ih_l0.copy_(torch.tensor(inputs["bias"]))
        gru.weight_hh_l0.copy_(torch.tensor(own["kernel"].T))
        gru.bias_hh_l0.copy_(torch.tensor(own["bias"][0]))
    embed = _embed(params)
    state = jax.tree.map(np.array, params["state"])
    for row in range(6):
        real = np.asarray(BATCH.request.history_where[row])
        events, items = embed["history"][row][real], embed["items"][row]
        last = gru(torch.tensor(events[None]))[1][0, 0].detach().numpy()
        expected = items @ (last @ state["kernel"] + state["bias"])
        where = np.asarray(BATCH.request.where[row])
        np.testing.assert_allclose(logits[row][where], expected[where], rtol=1e-5, atol=1e-5)


def _embed(params):
    """Sum the rows of the table by hand."""
    table = np.array(params["embedding"]["table"])
    names = sorted(factories.SIZES)
    first = dict(zip(names, np.cumsum([0, *(factories.SIZES[n] for n in names)]), strict=False))

    def read(ids, columns):
        rows = np.stack([first[c] + np.asarray(ids)[..., i] for i, c in enumerate(columns)], -1)
        return (table[rows] * (np.asarray(ids) > 0)[..., None]).sum(-2)

    spec = factories.make_spec()
    request = BATCH.request
    return {
        "history": read(request.history, spec.history),
        "items": read(request.candidates, spec.item),
    }
