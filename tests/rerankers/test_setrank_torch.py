"""SetRank against a plain PyTorch counterpart of the whole model, from ids to logits."""

import factories
import pytest

from dnr_jax.rerankers import build

torch = pytest.importorskip("torch")
import torch_blocks  # noqa: E402

KNOBS = {
    "width": 8,
    "layers": 2,
    "heads": 2,
    "feed_forward": 12,
    "dropout": 0.1,
    "history_layers": 1,
    "inducing": 3,
}


def induced(params, x, where):
    """IMSAB(X) = MAB(X, MAB(I, X)), twice (Pang et al. 2020)."""
    for number in range(2):
        points = params[f"points_{number}"].expand(len(x), -1, -1)
        summary = torch_blocks.transformer_layer(
            params[f"gather_{number}"], points, x, where, heads=2
        )
        every = torch.ones(summary.shape[:2], dtype=torch.bool)
        x = torch_blocks.transformer_layer(params[f"spread_{number}"], x, summary, every, heads=2)
    return x


def reference(*, attention, positions, score_entry, score_place, **_):
    """SetRank: tokens, ordinal embedding, blocks, head."""

    def logits(params, request, scores):
        x = torch_blocks.candidate_states(params, request, heads=2)
        late = score_entry
        if score_place == "early":
            x = torch_blocks.early_tokens(params.get("early_entry"), x, scores, score_entry)
            late = "none"
        if positions == "rank":
            places = torch_blocks.falling_places(scores, request.where)
            x = x + params["list_positions"]["table"][places]
        if attention == "imsab":
            x = induced(params["list_encoder"], x, request.where)
        else:
            x = torch_blocks.transformer(params["list_encoder"], x, request.where, heads=2)
        return torch_blocks.scored_head(params["head"], x, scores, late)

    return logits


@pytest.mark.parametrize(
    ("attention", "positions", "entry", "place"),
    [
        ("msab", "none", "concatenate", "late"),
        ("msab", "rank", "none", "late"),
        ("imsab", "none", "weight", "early"),
        ("imsab", "rank", "concatenate", "early"),
    ],
)
def test_logits_and_gradients_are_those_of_pytorch(attention, positions, entry, place):
    knobs = KNOBS | {
        "attention": attention,
        "positions": positions,
        "score_entry": entry,
        "score_place": place,
    }
    model = build("setrank", factories.make_task(), **knobs)
    torch_blocks.assert_same(model, reference(**knobs))
