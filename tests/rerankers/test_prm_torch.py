"""PRM against a plain PyTorch counterpart of the whole model, from ids to logits."""

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
    "history_layers": 2,
    "causal": False,
}


def reference(*, positions, causal, score_entry, score_place, **_):
    """PRM (Pei et al. 2019): tokens, positions, transformer, head."""

    def logits(params, request, scores):
        x = torch_blocks.candidate_states(params, request, heads=2)
        if "click_model" in params:
            clicks = torch_blocks.candidate_states(params["click_model"], request, heads=2)
            vectors = torch_blocks.mlp(params["click_model"]["network"], clicks)
            x = torch_blocks.dense(params["joined"], torch.cat([x, vectors], dim=-1))
        late = score_entry
        if score_place == "early":
            x = torch_blocks.early_tokens(params.get("early_entry"), x, scores, score_entry)
            late = "none"
        if positions == "rank":
            places = torch_blocks.falling_places(scores, request.where)
            x = x + params["list_positions"]["table"][places]
        if positions == "index":
            x = x + params["list_positions"]["table"]
        hidden = torch_blocks.transformer(
            params["list_encoder"], x, request.where, heads=2, causal=causal
        )
        return torch_blocks.scored_head(params["head"], hidden, scores, late)

    return logits


@pytest.mark.parametrize(
    "knobs",
    [
        {"positions": "none", "score_entry": "add", "score_place": "late", "pretrained": True},
        {"positions": "rank", "score_entry": "concatenate", "score_place": "early"},
        {
            "positions": "index",
            "score_entry": "weight",
            "score_place": "late_linear",
            "causal": True,
        },
    ],
    ids=lambda knobs: knobs["positions"],
)
def test_logits_and_gradients_are_those_of_pytorch(knobs):
    knobs = KNOBS | knobs
    model = build("prm", factories.make_task(), **knobs)
    # The head of the click model is no part of the logits.
    without = ("click_model",) if knobs.get("pretrained") else ()
    # Under seed 0 the gradients of a processor with AVX-512 are 4e-5 from those of others.
    torch_blocks.assert_same(model, reference(**knobs), seed=1, without=without)
