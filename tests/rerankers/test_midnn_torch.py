"""MiDNN against a plain PyTorch counterpart of the whole model, from ids to logits."""

import factories
import pytest

from dnr_jax.rerankers import build

torch = pytest.importorskip("torch")
import torch_blocks  # noqa: E402

KNOBS = {"width": 8, "history_layers": 1, "heads": 2, "feed_forward": 12, "dropout": 0.1}


def relative(features):
    """Scale each column of `[n, F]` to [0, 1] over one request's real candidates."""
    low, high = features.amin(dim=0), features.amax(dim=0)
    flat = high == low
    return torch.where(flat, 0.5, (features - low) / torch.where(flat, 1.0, high - low))


def reference(*, score_entry, score_place, **_):
    """Zhuang et al. 2018, request by request, on the real candidates alone."""
    early = score_place == "early" and score_entry != "none"

    def logits(params, request, scores):
        tokens = torch_blocks.candidate_states(params, request, heads=2)
        if early:
            entry = params.get("early_entry")
            tokens = torch_blocks.early_tokens(entry, tokens, scores, score_entry)
        spans = []
        for row, real in zip(tokens, request.where, strict=True):
            # The range of nothing is not defined.
            span = relative(row[real]) if real.any() else row[:0]
            spans.append(torch.zeros_like(row).masked_scatter(real[:, None], span))
        both = torch.cat([tokens, torch.stack(spans)], dim=-1)
        hidden = torch.relu(torch_blocks.mlp(params["network"], both))
        late = "none" if early else score_entry
        return torch_blocks.scored_head(params["head"], hidden, scores, late)

    return logits


@pytest.mark.parametrize(
    ("entry", "place"), [("none", "late"), ("concatenate", "early"), ("weight", "late_linear")]
)
def test_logits_and_gradients_are_those_of_pytorch(entry, place):
    knobs = KNOBS | {"score_entry": entry, "score_place": place}
    model = build("midnn", factories.make_task(), **knobs)
    torch_blocks.assert_same(model, reference(**knobs), scale=0.3)


def test_with_the_match_of_history_and_candidate_too():
    knobs = KNOBS | {"score_entry": "none", "score_place": "late"}
    model = build("midnn", factories.make_task(), matching=True, **knobs)
    torch_blocks.assert_same(model, reference(**knobs), scale=0.3)
