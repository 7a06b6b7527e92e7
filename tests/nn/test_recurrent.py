"""GRU and LSTM against PyTorch's, forward and gradients, with padding anywhere."""

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax.nn.recurrent import GRU, LSTM, LSTMCell

torch = pytest.importorskip("torch")


def twin(kind, params):
    """Make PyTorch's network with the same weights; its LSTM has a second bias, held at 0."""
    net = {GRU: torch.nn.GRU, LSTM: torch.nn.LSTM}[kind](3, 4, batch_first=True)
    inputs = params["input"]
    with torch.no_grad():
        net.weight_ih_l0.copy_(torch.tensor(np.array(inputs["kernel"].T)))
        net.bias_ih_l0.copy_(torch.tensor(np.array(inputs["bias"])))
        net.weight_hh_l0.copy_(torch.tensor(np.array(params["kernel"].T)))
        bias = np.array(params["bias"][0]) if "bias" in params else np.zeros(16, np.float32)
        net.bias_hh_l0.copy_(torch.tensor(bias))
    return net


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", [GRU, LSTM])
def test_equals_pytorch_on_the_real_steps(kind, reverse):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 6, 3)).astype(np.float32)
    where = np.array([[False, True, True, False, True, False]])
    module = kind(4, reverse=reverse)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x, where)["params"]
    params = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), jnp.float32), shapes)
    weights = rng.normal(size=(3, 4)).astype(np.float32)

    def loss(params, x):
        states = module.apply({"params": params}, x, where)
        return jnp.sum(states[0, jnp.array([1, 2, 4])] * weights), states

    (_, states), (slopes, x_slope) = factories.quick_jit(
        jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    )(params, x)
    net = twin(kind, params)
    order = slice(None, None, -1) if reverse else slice(None)
    real = torch.tensor(x[where][order].copy()[None], requires_grad=True)
    out = net(real)[0][0]
    expected = out.detach().numpy()[order]
    np.testing.assert_allclose(states[0][where[0]], expected, rtol=1e-5, atol=1e-5)
    (out * torch.tensor(weights[order].copy())).sum().backward()
    np.testing.assert_allclose(
        np.asarray(x_slope)[where], real.grad[0].numpy()[order], rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
        slopes["kernel"], net.weight_hh_l0.grad.numpy().T, rtol=1e-5, atol=1e-5
    )


def test_padding_holds_the_state():
    x = np.random.default_rng(1).normal(size=(2, 5, 3)).astype(np.float32)
    where = np.array([[True, False, True, True, False], [False] * 5])
    module = GRU(4)
    params = module.init(jax.random.key(0), x, where)
    states = module.apply(params, x, where)
    np.testing.assert_array_equal(states[0, 1], states[0, 0])
    np.testing.assert_array_equal(states[0, 4], states[0, 3])
    np.testing.assert_array_equal(states[1], 0)


def test_the_cell_is_one_step_of_the_network():
    x = np.random.default_rng(2).normal(size=(2, 5, 3)).astype(np.float32)
    params = LSTM(4).init(jax.random.key(0), x, np.ones((2, 5), bool))
    state = (np.zeros((2, 4), np.float32),) * 2
    for step in range(5):
        state = LSTMCell(4).apply(params, state, x[:, step])
        expected = LSTM(4).apply(params, x, np.ones((2, 5), bool))[:, step]
        np.testing.assert_allclose(state[0], expected, rtol=1e-5, atol=1e-6)
