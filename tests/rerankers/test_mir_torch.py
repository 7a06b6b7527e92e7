"""MIR against a plain PyTorch counterpart of the whole model, from ids to logits."""

import factories
import pytest

from dnr_jax.rerankers import build

torch = pytest.importorskip("torch")
import torch_blocks  # noqa: E402

# Width 16, as a layer norm of the two units that width 8 leaves the decay has no gradient.
KNOBS = {"width": 16, "heads": 2, "feed_forward": 12, "dropout": 0.1, "history_layers": 1}


def event_tokens(params, request):
    """Encode the events as candidates, plus their feedback from a table of its own."""
    items, _ = torch_blocks.history_tokens(params["encoder"], request)
    feedback = request.history[..., torch_blocks.SPEC.history.index("feedback")]
    return items + params["columns"]["table"][feedback.long()] * (feedback > 0)[..., None]


def meet(params, v, q, theta):
    """Compute [v, q] of one request without padding, by the equations of Xi et al. 2022."""
    ages = torch.arange(len(q) - 1, -1, -1, dtype=torch.float32)
    c = torch.tanh(
        (q @ params["bilinear"]["kernel"] @ v.T) * (1 + torch.exp(-theta * ages))[:, None]
    )
    of_v, of_q = v @ params["candidate"]["kernel"], q @ params["event"]["kernel"]
    of_candidates = torch.tanh(of_v + of_q.T @ c).softmax(dim=1)
    of_events = torch.tanh(of_q.T + of_v * c.sum(dim=1)[None]).softmax(dim=1)
    return torch.cat([of_candidates @ v, of_events @ q], dim=1)


def interact(params, tokens, events, theta):
    """One request, real candidates and events only: what the head reads."""
    forward = torch_blocks.lstm(params["history_list"]["forward"], events)
    backward = torch_blocks.lstm(params["history_list"]["backward"], events.flip(0)).flip(0)
    q = torch.cat([events, forward, backward], dim=1)
    every = torch.ones(1, len(tokens), dtype=torch.bool)
    mixed = torch_blocks.attention(
        params["candidate_set"], tokens[None], tokens[None], every, heads=2
    )
    met = meet(params["interaction"], torch.cat([tokens, mixed[0]], dim=1), q, theta)
    return torch.relu(torch_blocks.mlp(params["network"], torch.cat([tokens, met], dim=1)))


def reference(*, score_entry, score_place, **_):
    """MIR, request by request."""
    early = score_place == "early" and score_entry != "none"

    def logits(params, request, scores):
        encoder = params["request_encoder"]
        user, items = torch_blocks.request_encoder(encoder["encoder"], request, heads=2)
        tokens = torch_blocks.fusion(params["fusion"], user, items)
        if early:
            tokens = torch_blocks.early_tokens(
                params.get("early_entry"), tokens, scores, score_entry
            )
        events = event_tokens(encoder, request)
        theta = torch.relu(torch_blocks.mlp(params["decay"], user))
        size = KNOBS["width"] * 5 // 8
        rows = []
        for row, real in enumerate(request.where):
            past = events[row][request.history_where[row]]
            hidden = torch.zeros(len(real), size)
            if real.any():
                met = interact(params, tokens[row][real], past, theta[row])
                hidden = hidden.masked_scatter(real[:, None], met)
            rows.append(hidden)
        late = "none" if early else score_entry
        return torch_blocks.scored_head(params["head"], torch.stack(rows), scores, late)

    return logits


@pytest.mark.parametrize(("entry", "place"), [("concatenate", "late"), ("add", "early")])
def test_logits_and_gradients_are_those_of_pytorch(entry, place):
    knobs = KNOBS | {"score_entry": entry, "score_place": place}
    model = build("mir", factories.make_task(), **knobs)
    torch_blocks.assert_same(model, reference(**knobs), scale=0.2)
