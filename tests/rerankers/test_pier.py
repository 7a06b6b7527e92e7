"""PIER: OCPM against numpy, the pages of a user, what is shown, and the parts of the loss."""

from functools import cache

import factories
import jax
import jax.numpy as jnp
import numpy as np
from test_contract import irregular, model_of

from dnr_jax.nn import slates
from dnr_jax.nn.adapter import hide_padding
from dnr_jax.nn.dropout import identity
from dnr_jax.nn.list_evaluator import slate_labels
from dnr_jax.nn.losses import bce
from dnr_jax.nn.trunk import Trunk
from dnr_jax.rerankers.pier import CONTRAST, PIER, STRIDE
from dnr_jax.rerankers.pier import page_orders as fpsm
from dnr_jax.rerankers.pier.page_model import History, PageModel, target_attention

RNG = np.random.default_rng(0)
B, N, K, D, P, L = 3, 7, 3, 4, 2, 5
MODULE = PIER(factories.make_spec(), Trunk(**factories.SMALL), 3)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


ITEMS, BASE = normal(B, N, D), jnp.asarray(RNG.random((B, N)), jnp.float32)
SEEN = jnp.array([[True, True], [True, False], [False, False]])
HISTORY = History(normal(B, P, D), jnp.ones((B, P, fpsm.BITS)), SEEN)
PAGES = np.argsort(RNG.random((B, L, N)), axis=-1)[..., :K].astype(np.int32)
PAGES[0, 1, 2], PAGES[1, 0, 1:], PAGES[2, 3] = -1, -1, -1


def softmax(x):
    raised = np.exp(x - x.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def norm(x, p):
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
    return scaled * p["scale"] + p["bias"]


def dense(x, p):
    return x @ p["kernel"] + p.get("bias", 0.0)


def interest(target, b):
    """TAU by hand, for one target and the pages of request b."""
    pages = np.asarray(HISTORY.pages[b], np.float64)[np.asarray(SEEN[b])]
    return softmax(pages @ target / np.sqrt(D)) @ pages if len(pages) else np.zeros(D)


def slow_clicks(p, b, page, heads=2):
    """OCPM by hand, for one page of items."""
    items = np.asarray(ITEMS[b], np.float64)[page]
    x = items + p["places"][: len(page)]
    q, k, v = np.split(x @ p["attention"]["kernel"] + p["attention"]["bias"][0], 3, axis=-1)
    width = D // heads
    mixed = np.zeros_like(x)
    for h in range(heads):
        own = slice(h * width, (h + 1) * width)
        mixed[:, own] = softmax(q[:, own] @ k[:, own].T / np.sqrt(width)) @ v[:, own]
    states = norm(x + dense(mixed, p["attention"]["output"]), p["norm"])
    whole = states.mean(axis=0)
    context = dense(np.concatenate([whole, interest(whole, b)]), p["of_page"])
    alone = np.concatenate([items, np.asarray(BASE[b])[page, None]], axis=-1)
    alone = norm(np.maximum(dense(alone, p["of_item"]["Dense_0"]), 0), p["of_item"]["LayerNorm_0"])
    hidden = context + dense(states, p["of_state"]) + dense(alone, p["of_item"]["Dense_1"])
    return dense(np.maximum(hidden, 0), p["output"])[:, 0]


def test_the_page_model_is_that_by_hand():
    module = PageModel(D, K, 2)
    args = (ITEMS, BASE, HISTORY, jnp.asarray(PAGES))
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *args, drop=identity))
    params = jax.tree.map(lambda s: jnp.asarray(RNG.normal(size=s.shape), jnp.float32), shapes)
    found = factories.quick_jit(lambda p: module.apply(p, *args, drop=identity))(params)
    by_hand = jax.tree.map(lambda a: np.asarray(a, np.float64), params["params"])
    for b in range(B):
        for page, clicks in zip(PAGES[b], np.asarray(found[b]), strict=True):
            real = page[page >= 0]
            if len(real):
                expected = slow_clicks(by_hand, b, real)
                np.testing.assert_allclose(clicks[: len(real)], expected, rtol=1e-3, atol=1e-3)


def test_target_attention_is_a_softmax_over_the_pages_and_0_without_any():
    targets = normal(B, L, D)
    found = target_attention(targets, HISTORY.pages, SEEN)
    for b in range(B):
        for target, value in zip(np.asarray(targets[b], np.float64), found[b], strict=True):
            np.testing.assert_allclose(value, interest(target, b), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[2], 0)


@cache
def parts():
    """Compile `(params, batch) -> memory, logits, page, nearest, clicks of the nearest`."""

    def read(module, batch):
        request = hide_padding(batch.request)
        memory = module.encode(request, drop=identity)
        logits = module.decode(memory, batch.scores, request.where, drop=identity)
        page = slates.top_list(logits, request.where, K)
        nearest, farthest = module.pages.propose(memory.items, memory.history, page, 6)
        both = jnp.concatenate([nearest.lists, farthest.lists, batch.slate[:, None]], axis=1)
        base = jax.nn.sigmoid(logits)
        clicks = module.pages(memory.items, base, memory.history, both, drop=identity)
        return memory, logits, page, (nearest, farthest), clicks

    return factories.quick_jit(
        lambda params, batch: MODULE.apply({"params": params}, batch, method=read)
    )


def test_the_last_page_of_a_user_hashes_like_the_same_candidates():
    model, batch = model_of("pier"), factories.make_batch(seed=4)
    rows = np.flatnonzero(np.asarray(batch.request.where).sum(axis=1) >= K)
    assert len(rows) > 2
    page = np.full((6, K), -1, np.int32)
    history = np.array(batch.request.history)
    for b in rows:
        page[b] = np.flatnonzero(batch.request.where[b])[:K]
        # Feedback, the third column, stays as it was: the hash reads items only.
        history[b, -K:, :2] = np.asarray(batch.request.candidates)[b, page[b, [2, 0, 1]]]
    latest = jnp.broadcast_to(jnp.arange(5) >= 5 - K, history.shape[:2])
    request = batch.request.replace(history=jnp.asarray(history), history_where=latest)

    def read(module, request):
        memory = module.encode(hide_padding(request), drop=identity)
        return memory, module.pages.propose(memory.items, memory.history, jnp.asarray(page), 2)[0]

    run = factories.quick_jit(lambda p, r: MODULE.apply({"params": p}, r, method=read))
    memory, nearest = run(model.params, request)
    np.testing.assert_array_equal(memory.history.where, [[True, False]] * 6)
    places = np.asarray(model.params["pages"]["places"])
    for b in rows:
        identity_order, next_order = np.asarray(nearest.lists[b])
        np.testing.assert_array_equal(identity_order, page[b])
        # Other orders may share all signs of the user's page; none can be nearer than it.
        vector = (np.asarray(memory.items)[b, next_order] * places).sum(axis=0)
        bits = np.sign(vector @ fpsm.hash_matrix(8))
        np.testing.assert_array_equal(memory.history.signatures[b, 0], bits)


def test_the_shown_order_is_the_proposal_with_the_most_predicted_clicks():
    model, moved = model_of("pier"), 0
    for seed in range(3):
        batch = irregular(factories.make_batch(seed=seed))
        _, logits, page, (nearest, _), clicks = parts()(model.params, batch)
        rank = model.rank(model.params, batch.request, batch.scores)
        rates = 1 / (1 + np.exp(-np.asarray(clicks[:, :6], np.float64)))
        for b, real in enumerate(np.asarray(batch.request.where)):
            count = min(K, real.sum())
            mean = rates[b, :, :count].sum(axis=1)
            allowed = np.asarray(nearest.where[b])
            shown = np.argsort(-np.asarray(rank[b]), kind="stable")[:count]
            # The best of the base scorer, in one of the proposed orders.
            assert set(shown) == set(np.argsort(-np.where(real, logits[b], -np.inf))[:count])
            np.testing.assert_array_equal(nearest.lists[b, 0], page[b])
            same = [bool((row[:count] == shown).all()) for row in np.asarray(nearest.lists[b])]
            value = max(m for m, s, a in zip(mean, same, allowed, strict=True) if s and a)
            assert value >= mean[allowed].max() - 1e-6
            assert value >= mean[0] - 1e-6
            moved += same.index(True) > 0
    assert moved > 3


def test_the_loss_has_three_parts():
    model = model_of("pier")
    batch = irregular(model.batch)
    memory, logits, _, ends, clicks = parts()(model.params, batch)
    labels, weights = slate_labels(batch)
    fit = bce(logits, batch.labels, batch.weights) + bce(clicks[:, -1], labels, weights)
    rates = 1 / (1 + np.exp(-np.asarray(clicks, np.float64)))
    means = []
    for first, end in zip((0, 6), ends, strict=True):
        picked = []
        for b in range(6):
            # Of 6 orders 3 stand at each end, of which every fourth is judged: the first.
            assert STRIDE > 2
            if end.where[b, 0] and memory.history.where[b].any():
                picked += list(rates[b, first][np.asarray(end.lists[b, 0]) >= 0])
        means.append(np.mean(picked))
    assert means[0] != means[1]
    found = factories.quick_jit(model.reranker.stages[0].loss)(model.params, batch)
    np.testing.assert_allclose(found, fit - CONTRAST * (means[0] - means[1]), rtol=1e-5)


def test_the_contrast_holds_the_items_and_the_base_score_fixed():
    model = model_of("pier")
    memory, logits, page, _, _ = parts()(model.params, model.batch)

    def contrast(params, items, base):
        return MODULE.apply(
            {"params": params},
            memory._replace(items=items),
            base,
            page,
            drop=identity,
            method=PIER._contrast,
        )

    slopes = factories.quick_jit(jax.grad(contrast, argnums=(0, 1)))(
        model.params, memory.items, jax.nn.sigmoid(logits)
    )
    np.testing.assert_array_equal(slopes[1], 0)
    moved = {name for name, g in slopes[0].items() if any(jnp.any(x) for x in jax.tree.leaves(g))}
    assert moved == {"pages"}


def test_the_page_model_does_not_teach_the_base_scorer_through_its_score():
    model, batch = model_of("pier"), model_of("pier").batch

    def base_loss(params):
        logits = model.apply(params, batch.request, batch.scores)
        return bce(logits, batch.labels, batch.weights)

    # Without dropout both are the same function of the base scorer's own blocks.
    whole = factories.quick_jit(jax.grad(model.reranker.stages[0].loss))(model.params, batch)
    alone = factories.quick_jit(jax.grad(base_loss))(model.params)
    for group in ("head", "list_encoder", "fusion"):
        for one, other in zip(
            jax.tree.leaves(whole[group]), jax.tree.leaves(alone[group]), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)
    table = "request_encoder"
    assert not all(
        np.allclose(one, other, rtol=1e-3, atol=1e-6)
        for one, other in zip(
            jax.tree.leaves(whole[table]), jax.tree.leaves(alone[table]), strict=True
        )
    )
