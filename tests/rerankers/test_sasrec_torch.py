"""SASRec against a plain PyTorch counterpart of the whole model, from ids to logits."""

import factories
import pytest

from dnr_jax.rerankers import build

torch = pytest.importorskip("torch")
import torch_blocks  # noqa: E402

KNOBS = {"width": 8, "history_layers": 2, "heads": 2, "feed_forward": 12, "dropout": 0.1}


def reference(*, score_entry, score_place, causal=True, **_):
    """Kang and McAuley 2018, with post-norm blocks and positions from the latest event."""

    def logits(params, request, scores):
        table, history = params["embedding"]["table"], params["history"]
        events = 8**0.5 * torch_blocks.embed(table, torch_blocks.SPEC.history, request.history)
        tokens = torch_blocks.layer_norm(
            history["LayerNorm_0"], events + history["positions"].flip(0)
        )
        states = torch_blocks.transformer(
            history["Transformer_0"], tokens, request.history_where, heads=2, causal=causal
        )
        met = request.history_where.any(dim=1, keepdim=True)
        items = torch_blocks.embed(table, torch_blocks.SPEC.item, request.candidates)
        if score_place == "early":
            early = params["head"]["EarlyEntry_0"]
            items = torch_blocks.early_tokens(early, items, scores, score_entry)
        matched = (states[:, -1] * met)[:, None] * items
        product = matched.sum(dim=-1)
        if score_place == "early" or score_entry == "none":
            return product
        head = params["head"]["ScoredHead_0"]
        return product + torch_blocks.scored_head(head, matched, scores, score_entry)

    return logits


def knobs(entry, place):
    return KNOBS | {"score_entry": entry, "score_place": place}


@pytest.mark.parametrize(
    ("entry", "place"), [("none", "late"), ("concatenate", "late"), ("add", "early")]
)
def test_logits_and_gradients_are_those_of_pytorch(entry, place):
    chosen = knobs(entry, place)
    model = build("sasrec", factories.make_task(), **chosen)
    torch_blocks.assert_same(model, reference(**chosen))


def test_events_do_not_see_later_ones():
    chosen = knobs("none", "late")
    model = build("sasrec", factories.make_task(), **chosen)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        torch_blocks.assert_same(model, reference(**chosen, causal=False))
