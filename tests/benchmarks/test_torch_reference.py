"""The PyTorch side of the throughput benchmark does the same work: equal losses and gradients."""

from functools import partial

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import standard_case

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # beside other workers its threads would wait for one another, spinning

from benchmarks import torch_reference  # noqa: E402
from dnr_jax import types  # noqa: E402
from dnr_jax.noise import build_draw  # noqa: E402
from dnr_jax.noise.mixing import draw_batch  # noqa: E402
from dnr_jax.objectives import ObjectiveSettings  # noqa: E402
from dnr_jax.training.step import generator_terms, reranker_terms  # noqa: E402

TINY = {"width": 8, "heads": 2, "feed_forward": 12, "dropout": 0.0}
BATCH = standard_case.make_batch(6, candidates=7, history=5, slate=3)
KEY = jax.random.key(3)


def same(ours, theirs, path="", *, tolerance=1e-5):
    """Compare trees of gradients; the tolerance is relative to the largest of each array."""
    for name, slope in ours.items():
        if isinstance(slope, dict):
            same(slope, theirs[name], f"{path}/{name}", tolerance=tolerance)
            continue
        expected = theirs[name].grad.numpy()
        largest = np.abs(expected).max()
        assert largest > 0, f"{path}/{name}: no gradient to compare"
        np.testing.assert_allclose(
            slope,
            expected,
            rtol=tolerance,
            atol=tolerance * largest,
            err_msg=f"{path}/{name}",
        )


def prepared(work):
    game = standard_case.make_game(work, "float32", **TINY)
    theta = factories.initial_params(game.reranker, BATCH)
    network = torch_reference.Network(standard_case.knobs_of(work, **TINY), rate=0.0)
    columns = torch_reference.columns(BATCH, "cpu")
    return game, theta, network, columns, torch_reference.to_torch(theta, "cpu", learned=True)


# Each entry and each phase once: the others are made of the same parts.
@pytest.mark.parametrize("work", [standard_case.WORKS[i] for i in (0, 2, 4)], ids=str)
def test_the_reranker_s_loss_and_gradients_are_equal(work):
    game, theta, network, columns, weights = prepared(work)
    phi = {} if game.noise is None else factories.quick_jit(game.noise.init)(KEY, BATCH)
    noise_key = jax.random.split(KEY, 4)[2]
    run = jax.jit(jax.value_and_grad(lambda t: reranker_terms(t, phi, BATCH, KEY, game)[0]))
    loss, slopes = run(theta)
    if game.noise is None:
        expected = torch_reference.plain_loss(network, weights, columns)
    else:
        noisy = np.array(game.noise.sample(phi, noise_key, BATCH))
        expected = torch_reference.reranker_loss(network, weights, columns, torch.tensor(noisy))
    expected.backward()
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-5)
    same(slopes, weights)


# Two float32 FFTs differ by some 1e-7, and where few samples are near, L_x takes the logarithm of
# sums down to 1e-4: its slopes then agree to fewer digits than all the rest.
@pytest.mark.parametrize(("lambda_x", "tolerance"), [(0.0, 1e-5), (1.0, 5e-4)])
@pytest.mark.parametrize("work", [w for w in standard_case.WORKS if w.phase == 2], ids=str)
def test_the_generator_s_loss_and_gradients_are_equal(work, lambda_x, tolerance):
    game, theta, network, columns, weights = prepared(work)
    game = game._replace(objective=ObjectiveSettings(lambda_x=lambda_x))
    phi = factories.quick_jit(game.noise.init)(KEY, BATCH)
    run = jax.jit(jax.value_and_grad(lambda p: generator_terms(p, theta, BATCH, KEY, game)[0]))
    loss, slopes = run(phi)
    eps = np.array(draw_batch(build_draw("beta"), KEY, BATCH))
    learned = torch_reference.to_torch(phi, "cpu", learned=True)
    arguments = (network, weights, learned, columns, torch.tensor(eps))
    expected = torch_reference.generator_loss(*arguments, lambda_x=lambda_x)
    expected.backward(inputs=jax.tree.leaves(learned))
    np.testing.assert_allclose(loss, expected.item(), rtol=tolerance, atol=1e-6)
    same(slopes, learned, tolerance=tolerance)


def test_logits_are_equal():
    game, theta, network, columns, weights = prepared(standard_case.WORKS[0])
    ours = factories.quick_jit(partial(types.apply, game.reranker))(
        theta, BATCH.request, BATCH.scores
    )
    theirs = network.decode(weights, network.encode(weights, columns), columns["scores"], columns)
    np.testing.assert_allclose(ours, theirs.detach(), rtol=1e-5, atol=1e-5)


def test_the_heuristic_noise_is_equal():
    game = standard_case.make_game(standard_case.Work(1, "late"), "float32", **TINY)
    eps = np.array(draw_batch(build_draw("beta"), KEY, BATCH))
    columns = torch_reference.columns(BATCH, "cpu")
    theirs = torch_reference.heuristic(columns, torch.tensor(eps))
    ours = jnp.asarray(game.noise.sample({}, KEY, BATCH))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
