"""DiffuRec against a plain PyTorch counterpart, the reverse process written out step by step."""

import factories
import jax
import numpy as np
import pytest

from dnr_jax.rerankers import build
from dnr_jax.rerankers.diffurec import REVERSE_SEED
from dnr_jax.rerankers.diffurec.diffusion import draw_noise, make_schedule, truncated_linear

torch = pytest.importorskip("torch")
import torch_blocks  # noqa: E402
from torch.nn import functional  # noqa: E402

KNOBS = {
    "width": 8,
    "history_layers": 2,
    "heads": 2,
    "feed_forward": 12,
    "dropout": 0.1,
    "diffusion_steps": 6,
    "reverse_steps": 3,
    "reverse_samples": 2,
    "uncertainty": 0.3,
}
SCHEDULE = make_schedule(truncated_linear(6), 3)


def approximate(params, noisy, step, events, where, mix):
    """Predict x_0: pre-norm blocks in which every position attends, of which the last counts."""
    angles = step * 1000 / 6 * 10000.0 ** (-torch.arange(4) / 4)
    waves = torch.cat([torch.cos(angles), torch.sin(angles)])
    layers = params["StepEmbedding_0"]
    # Flax numbers modules as they are made, and Python makes the outer one first.
    hidden = functional.silu(torch_blocks.dense(layers["Dense_1"], waves))
    stepped = torch_blocks.dense(layers["Dense_0"], hidden)
    x = events + mix * (noisy + stepped)[:, None]
    for number in range(2):
        tokens = torch_blocks.layer_norm(params[f"LayerNorm_{2 * number}"], x)
        block = params[f"Attention_{number}"]
        x = x + torch_blocks.attention(block, tokens, tokens, where, heads=2)
        tokens = torch_blocks.layer_norm(params[f"LayerNorm_{2 * number + 1}"], x)
        hidden = torch_blocks.dense(params[f"Dense_{2 * number}"], tokens)
        hidden = functional.gelu(hidden, approximate="tanh")
        x = x + torch_blocks.dense(params[f"Dense_{2 * number + 1}"], hidden)
    last = torch_blocks.layer_norm(params["LayerNorm_4"], x[:, -1])
    return last * where.any(dim=1, keepdim=True)


def sample(params, keys, events, where):
    """Take x_T back to x_0; all but the last step are constants."""

    def draw(step):
        rows = (
            draw_noise(jax.random.fold_in(key, step), np.zeros(events.shape[1:])) for key in keys
        )
        return torch.tensor(np.stack(list(rows)))

    noisy = draw(6)[:, 0]
    for i in (2, 1, 0):
        step = int(SCHEDULE.steps[i])
        noise = draw(step)
        mix = 0.3 + 0.3 * noise[:, 1:]
        clean = approximate(params, noisy.detach(), step, events, where, mix)
        mean = float(SCHEDULE.from_start[i]) * clean + float(SCHEDULE.from_noisy[i]) * noisy
        noisy = mean + float(SCHEDULE.spread[i]) * noise[:, 0]
        noisy = noisy if i == 0 else noisy.detach()
    return noisy


def reference(*, score_entry, score_place):
    """Li et al. 2023, two samples a request."""

    def logits(params, request, scores):
        table, spec = params["embedding"]["table"], torch_blocks.SPEC
        events = torch_blocks.embed(table, spec.history, request.history)
        events = torch_blocks.layer_norm(params["event_norm"], events)
        key = jax.random.key(REVERSE_SEED)
        pairs = [jax.random.split(jax.random.fold_in(key, int(i)), 2) for i in request.index]
        inner, where = params["diffusion"]["approximator"], request.history_where
        both = [sample(inner, [pair[s] for pair in pairs], events, where) for s in (0, 1)]
        items = torch_blocks.embed(table, spec.item, request.candidates)
        if score_place == "early":
            early = params["head"]["EarlyEntry_0"]
            items = torch_blocks.early_tokens(early, items, scores, score_entry)
        matched = ((both[0] + both[1]) / 2)[:, None] * items
        product = matched.sum(dim=-1)
        if score_place == "early" or score_entry == "none":
            return product
        head = params["head"]["ScoredHead_0"]
        return product + torch_blocks.scored_head(head, matched, scores, score_entry)

    return logits


@pytest.mark.parametrize(
    ("entry", "place"), [("none", "late"), ("concatenate", "late"), ("add", "early")]
)
def test_logits_and_gradients_are_those_of_pytorch(entry, place):
    chosen = {"score_entry": entry, "score_place": place}
    model = build("diffurec", factories.make_task(), **KNOBS, **chosen)
    torch_blocks.assert_same(model, reference(**chosen))
