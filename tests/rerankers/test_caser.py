"""Caser: its filters against loops, what its window sees, and whom it reads."""

from functools import cache

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax import types
from dnr_jax.rerankers import build
from dnr_jax.rerankers.caser import Filters

KNOBS = {"window": 3, "vertical": 2, "horizontal": 4, "score_entry": "none"}
BATCH = factories.make_batch(seed=3)
FULL = BATCH.request.replace(history_where=jnp.ones_like(BATCH.request.history_where))
L, D, VERTICAL, HORIZONTAL = 6, 5, 2, 3
FILTERS = Filters(VERTICAL, HORIZONTAL)
RNG = np.random.default_rng(0)
WINDOW = RNG.normal(size=(2, L, D)).astype(np.float32)
KERNELS = FILTERS.init(jax.random.key(0), WINDOW)


def make(**knobs):
    return build("caser", factories.make_task(), **(factories.SMALL | KNOBS | knobs))


@cache
def scorer(**knobs):
    """Compile a Caser of random parameters into `logits(request)`."""
    model = make(**knobs)
    params = factories.random_params(model, BATCH)
    return factories.quick_jit(lambda request: types.apply(model, params, request, BATCH.scores))


def change(logits, request, other):
    """Return the largest change of a real candidate's logit, per request."""
    moved = jnp.abs(logits(request) - logits(other))
    return np.asarray(jnp.where(BATCH.request.where, moved, 0).max(axis=1))


def test_filters_are_what_the_paper_writes():
    weighed, peaks = FILTERS.apply(KERNELS, WINDOW)
    assert weighed.shape == (2, VERTICAL * D)
    assert peaks.shape == (2, HORIZONTAL * L)
    rows = np.asarray(KERNELS["params"]["vertical_kernel"])
    expected = np.stack([[window.T @ rows[:, v] for v in range(VERTICAL)] for window in WINDOW])
    np.testing.assert_allclose(weighed, expected.reshape(2, -1), rtol=1e-5, atol=1e-5)
    for number in range(L):
        kernel = np.asarray(KERNELS["params"][f"Conv_{number}"]["kernel"])
        height = number + 1
        places = [
            np.einsum("bhd,hdn->bn", WINDOW[:, at : at + height], kernel)
            for at in range(L - height + 1)
        ]
        own = peaks[:, number * HORIZONTAL : (number + 1) * HORIZONTAL]
        np.testing.assert_allclose(own, np.maximum(np.max(places, axis=0), 0), rtol=1e-5, atol=1e-5)


def test_vertical_filters_are_linear_and_horizontal_ones_are_not():
    other = RNG.normal(size=WINDOW.shape).astype(np.float32)
    both, one, two = (FILTERS.apply(KERNELS, m) for m in (WINDOW - 2 * other, WINDOW, other))
    np.testing.assert_allclose(both[0], one[0] - 2 * two[0], rtol=1e-4, atol=1e-5)
    assert float(jnp.abs(both[1] - (one[1] - 2 * two[1])).max()) > 0.1


def test_a_shifted_block_moves_the_vertical_output_only():
    block = np.zeros_like(WINDOW)
    block[:, 1:3] = WINDOW[:, :2]
    shifted = np.roll(block, 2, axis=1)
    before, after = (FILTERS.apply(KERNELS, m) for m in (block, shifted))
    # Heights 1 and 2: both placements have at least one row of padding on each side.
    np.testing.assert_allclose(
        before[1][:, : 2 * HORIZONTAL], after[1][:, : 2 * HORIZONTAL], rtol=1e-5, atol=1e-6
    )
    assert float(jnp.abs(before[0] - after[0]).max()) > 0.1


def test_padding_is_silent():
    for output in FILTERS.apply(KERNELS, np.zeros_like(WINDOW)):
        np.testing.assert_array_equal(output, 0)


def test_the_window_ends_at_the_latest_event():
    logits = scorer()
    for place, seen in ((1, False), (2, True), (4, True)):  # T = 5, a window of 3
        other = FULL.replace(history=FULL.history.at[:, place, 0].add(7) % 40)
        assert (change(logits, FULL, other).max() > 1e-3) == seen


def test_a_history_shorter_than_the_window_is_padded_in_front():
    logits = scorer(window=4)
    masked = FULL.replace(history_where=FULL.history_where.at[:, :3].set(False))
    short = FULL.replace(history=FULL.history[:, 3:], history_where=FULL.history_where[:, 3:])
    np.testing.assert_allclose(logits(short), logits(masked), rtol=1e-5, atol=1e-5)


def test_it_reads_the_user_and_not_the_context():
    logits = scorer()
    other = FULL.replace(user=FULL.user.at[:, 0].set(FULL.user[:, 0] % 11 + 1))
    assert change(logits, FULL, other).min() > 1e-4
    np.testing.assert_array_equal(logits(FULL), logits(FULL.replace(context=FULL.context * 0)))


def test_a_candidate_does_not_see_the_others():
    logits = scorer()
    alone = FULL.replace(where=jnp.ones_like(FULL.where).at[:, 1:].set(False))
    every = FULL.replace(where=jnp.ones_like(FULL.where))
    np.testing.assert_allclose(logits(alone)[:, 0], logits(every)[:, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("knob", ["width", "window", "vertical", "horizontal"])
def test_bad_sizes_are_named(knob):
    with pytest.raises(ValueError, match=f"{knob} is 0: it must be 1 or more"):
        make(**{knob: 0})
