"""NAR4Rec's generator against a plain PyTorch counterpart, from ids to M and to the logits."""

from types import SimpleNamespace

import factories
import numpy as np
import pytest

from dnr_jax.nn.adapter import wrap
from dnr_jax.nn.dropout import identity
from dnr_jax.nn.trunk import Trunk
from dnr_jax.rerankers.nar4rec.matching import MatchingGenerator

torch = pytest.importorskip("torch")
import torch_blocks  # noqa: E402

LAYERS, PLACES, WIDTH = 2, 3, 8


def make(entry, place):
    sizes = {"width": WIDTH, "layers": LAYERS, "heads": 2, "feed_forward": 12}
    trunk = Trunk(**sizes, history_layers=1, score_entry=entry, score_place=place)
    return MatchingGenerator(torch_blocks.SPEC, trunk, PLACES)


def positions(params, items, where):
    """P `[B, K, D]`: the places attend to one another, then to the candidates."""
    x = params["places"].expand(len(items), -1, -1)
    every = torch.ones(x.shape[:2], dtype=torch.bool)
    for number in range(LAYERS):
        x = torch_blocks.transformer_layer(params[f"among_{number}"], x, x, every, heads=2)
        x = torch_blocks.transformer_layer(params[f"across_{number}"], x, items, where, heads=2)
    return x


def matching(params, request, scores, *, entry, place):
    """M `[B, N, K]`, by one inner product for each candidate and place."""
    x = torch_blocks.candidate_states(params, request, heads=2)
    if place == "early" and entry != "none":
        x = torch_blocks.early_tokens(params.get("early_entry"), x, scores, entry)
    x = torch_blocks.transformer(params["list_encoder"], x, request.where, heads=2)
    p = positions(params["position_encoder"], x, request.where)
    found = torch.einsum("bnd,bkd->bnk", x, p) / WIDTH**0.5
    if place == "early" or entry == "none":
        return found
    return found + torch_blocks.scored_head(params["head"], x, scores, entry)[..., None]


@pytest.mark.parametrize(
    ("entry", "place"),
    [("none", "late"), ("concatenate", "late"), ("weight", "late_linear"), ("add", "early")],
)
def test_logits_and_gradients_are_those_of_pytorch(entry, place):
    def logits(params, request, scores):
        return matching(params, request, scores, entry=entry, place=place).exp().mean(-1).log()

    torch_blocks.assert_same(wrap(make(entry, place), dropout=0.1), logits)


def test_the_matching_matrix_is_that_of_pytorch():
    generator, batch = make("concatenate", "late"), torch_blocks.padded_batch()
    params = factories.random_params(wrap(generator, dropout=0.0), batch, scale=0.4)

    def read(module):
        memory = module.encode(batch.request, drop=identity)
        return module.match(memory, batch.scores, batch.request.where, drop=identity)[1]

    found = factories.quick_jit(lambda p: generator.apply({"params": p}, method=read))(params)
    request = SimpleNamespace(
        **{k: torch_blocks.to_torch(v) for k, v in vars(batch.request).items()}
    )
    weights, scores = torch_blocks.to_torch((params, batch.scores))
    expected = matching(weights, request, scores, entry="concatenate", place="late")
    real = np.asarray(batch.request.where)
    np.testing.assert_allclose(
        np.asarray(found)[real], expected.numpy()[real], rtol=1e-5, atol=1e-5
    )
