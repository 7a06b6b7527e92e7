"""DLCM against a plain PyTorch counterpart of the whole model, from ids to logits."""

import factories
import pytest

from dnr_jax.rerankers import build

torch = pytest.importorskip("torch")
import torch_blocks  # noqa: E402

KNOBS = {"width": 8, "heads": 2, "feed_forward": 12, "dropout": 0.1, "history_layers": 1}


def reference(*, score_entry, score_place, **_):
    """DLCM (Ai et al. 2018), request by request, on the real candidates alone."""
    early = score_place == "early" and score_entry != "none"

    def logits(params, request, scores):
        tokens = torch_blocks.candidate_states(params, request, heads=2)
        if early:
            tokens = torch_blocks.early_tokens(
                params.get("early_entry"), tokens, scores, score_entry
            )
        matched = []
        for row, where, x in zip(tokens, request.where, scores, strict=True):
            real = torch.nonzero(where)[:, 0]
            rising = real[x[real].argsort()]
            states = torch_blocks.gru(params["ranking"], row[rising])
            # Without candidates there is no last state, and nothing to multiply.
            context = torch.tanh(torch_blocks.dense(params["context"], states[-1:]))
            matched.append(torch.zeros_like(row).index_copy(0, rising, states * context))
        late = "none" if early else score_entry
        return torch_blocks.scored_head(params["head"], torch.stack(matched), scores, late)

    return logits


@pytest.mark.parametrize(
    ("entry", "place"), [("none", "late"), ("concatenate", "early"), ("weight", "late_linear")]
)
def test_logits_and_gradients_are_those_of_pytorch(entry, place):
    knobs = KNOBS | {"score_entry": entry, "score_place": place}
    model = build("dlcm", factories.make_task(), **knobs)
    torch_blocks.assert_same(model, reference(**knobs))
