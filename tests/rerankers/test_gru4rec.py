"""GRU4Rec's own properties, and the whole model against one that runs PyTorch's GRU."""

import factories
import numpy as np
import pytest

from dnr_jax.rerankers import build

torch = pytest.importorskip("torch")
import torch_blocks  # noqa: E402

KNOBS = {"width": 8, "score_entry": "none"}


def last_state(params, events):
    """Run `torch.nn.GRU` over one history without padding, `[L, D]` to `[H]`."""
    size = params["kernel"].shape[0]
    if not len(events):
        return torch.zeros(size)
    weights = {
        "weight_ih_l0": params["input"]["kernel"].T,
        "bias_ih_l0": params["input"]["bias"],
        "weight_hh_l0": params["kernel"].T,
        "bias_hh_l0": params["bias"][0],
    }
    gru = torch.nn.GRU(events.shape[1], size)
    return torch.func.functional_call(gru, weights, (events,))[1][0]


def logits_of(params, request, scores):
    """Hidasi et al. 2016: `q = W h_T + b` on the real events alone, `s_i = q . e_i`."""
    table = params["embedding"]["table"]
    events = torch_blocks.embed(table, torch_blocks.SPEC.history, request.history)
    items = torch_blocks.embed(table, torch_blocks.SPEC.item, request.candidates)
    rows = zip(events, request.history_where, strict=True)
    last = torch.stack([last_state(params["recurrent"], row[real]) for row, real in rows])
    return (torch_blocks.dense(params["state"], last)[:, None] * items).sum(dim=-1)


def gaps(batch):
    """Turn events into padding at random places, not only in front."""
    holes = np.random.default_rng(2).random(batch.request.history_where.shape) < 0.4
    kept = batch.request.history_where & ~holes
    assert bool((kept[:, :-1] & ~kept[:, 1:]).any())
    return batch.replace(request=batch.request.replace(history_where=kept))


@pytest.mark.parametrize("make", [lambda batch: batch, gaps], ids=["in_front", "anywhere"])
def test_logits_and_gradients_are_those_of_pytorch_on_the_trimmed_history(make):
    model = build("gru4rec", factories.make_task(), **KNOBS)
    torch_blocks.assert_same(model, logits_of, batch=make(torch_blocks.padded_batch()))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"width": 0}, "width is 0: it must be 1 or more"),
        ({"dropout": 1.0}, "dropout is 1.0: it must be 0 or more and below 1"),
        ({"score_entry": "concat"}, "score_entry is 'concat': it must be one of none"),
    ],
)
def test_bad_knobs_are_named(knobs, message):
    with pytest.raises(ValueError, match=message):
        build("gru4rec", factories.make_task(), **(KNOBS | knobs))
