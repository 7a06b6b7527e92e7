"""The throughput benchmark: its smoke modes, its FLOP count, and its steps on other platforms."""

import json
from functools import partial

import factories
import jax
import jax.numpy as jnp
import pytest
from jax import export

from benchmarks import standard_case, throughput
from dnr_jax.training.step import make_step

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # beside other workers its threads would wait for one another, spinning
from torch.nn import attention  # noqa: E402
from torch.utils import flop_counter  # noqa: E402

from benchmarks import torch_reference  # noqa: E402

KEY = jax.random.key(3)


@pytest.mark.parametrize("work", [standard_case.WORKS[2], standard_case.WORKS[5]], ids=str)
def test_a_step_lowers_for_gpu_and_tpu(work):
    game = standard_case.make_game(work, "bfloat16", **standard_case.TINY)
    batch = standard_case.make_batch(8)
    step = make_step(game, standard_case.optimizer(), plays=True)
    start = partial(standard_case.fresh, game, batch)
    state, turn = jax.eval_shape(start), jax.ShapeDtypeStruct((), jnp.int32)
    lower = export.export(jax.jit(step), platforms=["tpu", "cuda"])
    assert lower(state, batch, turn).platforms == ("tpu", "cuda")


def test_the_flops_of_a_plain_step_are_those_of_its_matrix_products():
    """Count them in a program that computes all positions, by PyTorch's own count."""
    sizes = {"width": 64, "feed_forward": 128, "heads": 4}
    batch = standard_case.make_batch(2)
    network = torch_reference.Network(
        standard_case.knobs_of(standard_case.WORKS[0], **sizes), rate=0.0
    )
    game = standard_case.make_game(standard_case.WORKS[0], "float32", **sizes)
    theta = factories.initial_params(game.reranker, batch)
    weights = torch_reference.to_torch(theta, "cpu", learned=True)
    columns = torch_reference.columns(batch, "cpu")
    # The fused attention of a CPU is not counted, the plain one is.
    plain = attention.sdpa_kernel(attention.SDPBackend.MATH)
    with flop_counter.FlopCounterMode(display=False) as counter, plain:
        torch_reference.plain_loss(network, weights, columns).backward()
    counted = counter.get_total_flops() / 2
    assert standard_case.train_flops(**sizes) == pytest.approx(counted, rel=1e-3)


@pytest.mark.parametrize("what", throughput.TABLES)
def test_smoke_mode_prints_every_row(what, tmp_path, monkeypatch):
    if what == "seeds":  # the epochs of `step`, but of several seeds: tests/training has those
        monkeypatch.setattr(throughput, "_epochs", lambda *_: lambda: None)
    path = tmp_path / "rows.json"
    throughput.main(throughput.parser().parse_args([what, "--smoke", "--json", str(path)]))
    rows = json.loads(path.read_text())["rows"]
    assert len(rows) == {"step": 4, "epoch": 1, "seeds": 3, "score": 2}[what]
    for row in rows:
        assert all(value > 0 for value in row.values() if isinstance(value, float))
