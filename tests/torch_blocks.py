"""PyTorch counterparts of `dnr_jax.nn`, run on our own parameter trees: references of whole models.

A reference is a function `logits(params, request, scores) -> [B, N]` of torch tensors: `params` is
the tree of the JAX model, `request` a namespace with the fields of `types.Request`. Dropout is off.
"""

from itertools import accumulate
from types import SimpleNamespace

import factories
import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional

from dnr_jax import types

SPEC = factories.make_spec()


def to_torch(tree, *, learned=False):
    """Copy a tree of arrays; `learned` ones collect gradients."""
    return jax.tree.map(lambda a: torch.tensor(np.asarray(a), requires_grad=learned), tree)


def dense(params, x):
    return functional.linear(x, params["kernel"].T, params.get("bias"))


def layer_norm(params, x):
    return functional.layer_norm(x, x.shape[-1:], params["scale"], params["bias"], eps=1e-6)


def mlp(params, x):
    """`nn.layers.MLP`: hidden layers of Linear, ReLU, LayerNorm, then Linear."""
    depth = sum(name.startswith("LayerNorm") for name in params)
    for number in range(depth):
        x = functional.relu(dense(params[f"Dense_{number}"], x))
        x = layer_norm(params[f"LayerNorm_{number}"], x)
    return dense(params[f"Dense_{depth}"], x)


def attention(params, queries, keys, where, *, heads, causal=False):
    """`nn.attention.Attention` by PyTorch's own multi-head attention; all `[B, length, D]`."""
    seen = where[:, None, :].expand(-1, queries.shape[1], -1)
    if causal:
        seen = seen & torch.ones(seen.shape[1:], dtype=torch.bool).tril()
    # Finite, as a query that sees nothing must not make NaN.
    bias = torch.where(seen, 0.0, -1e9).repeat_interleave(heads, dim=0)
    rows = keys.transpose(0, 1)
    mixed, _ = functional.multi_head_attention_forward(
        *(queries.transpose(0, 1), rows, rows, queries.shape[-1], heads),
        *(params["kernel"].T, params["bias"].reshape(-1), None, None, False, 0.0),
        *(params["output"]["kernel"].T, params["output"]["bias"]),
        need_weights=False,
        attn_mask=bias,
    )
    return mixed.transpose(0, 1)


def transformer_layer(params, queries, keys, where, *, heads, causal=False):
    """`nn.attention.TransformerLayer`, the post-norm block (MAB)."""
    attended = attention(params["Attention_0"], queries, keys, where, heads=heads, causal=causal)
    x = layer_norm(params["LayerNorm_0"], queries + attended)
    hidden = functional.relu(dense(params["Dense_0"], x))
    return layer_norm(params["LayerNorm_1"], x + dense(params["Dense_1"], hidden))


def transformer(params, x, where, *, heads, causal=False):
    """`nn.attention.Transformer`: as many layers as there are parameters."""
    for number in range(len(params)):
        x = transformer_layer(params[f"layer_{number}"], x, x, where, heads=heads, causal=causal)
    return x


def gru(params, x):
    """`nn.recurrent.GRU` over one sequence without padding: `[L, F]` to `[L, H]`."""
    h = torch.zeros(1, params["kernel"].shape[0])
    states = [h[:0]]  # a sequence may be empty
    weights = (params["input"]["kernel"].T, params["kernel"].T)
    for now in x:
        h = torch.gru_cell(now[None], h, *weights, params["input"]["bias"], params["bias"][0])
        states.append(h)
    return torch.cat(states)


def lstm(params, x):
    """`nn.recurrent.LSTM` over one sequence without padding: `[L, F]` to `[L, H]`."""
    h = c = torch.zeros(1, params["kernel"].shape[0])
    bias, states = params["input"]["bias"], [h[:0]]  # a sequence may be empty
    weights = (params["input"]["kernel"].T, params["kernel"].T, bias, torch.zeros_like(bias))
    for now in x:
        h, c = torch.lstm_cell(now[None], (h, c), *weights)
        states.append(h)
    return torch.cat(states)


def embed(table, names, ids):
    """Sum the embeddings of the columns `names` of `ids` `[..., columns]`; id 0 embeds to 0."""
    every = sorted({*SPEC.user, *SPEC.context, *SPEC.history, *SPEC.item})
    first = dict(zip(every, accumulate((SPEC.sizes[n] for n in every), initial=0), strict=False))
    columns = (
        functional.embedding(ids[..., i].long() + first[name], table) * (ids[..., i, None] > 0)
        for i, name in enumerate(names)
    )
    return sum(columns)


def history_tokens(params, request):
    """Split the events of a request: `(e_l, f_l)`, encoded items and summed other columns."""
    table = params["FeatureEmbedding_0"]["table"]
    own = [name for name in SPEC.history if name not in SPEC.item]
    shared = [name for name in SPEC.history if name in SPEC.item]
    items, events = (
        embed(table, names, request.history[..., [SPEC.history.index(n) for n in names]])
        for names in (shared, own)
    )
    return encode_items(params, items), events


def encode_items(params, items):
    """`e = LN(W LN(E))` of `nn.user_state.RequestEncoder`."""
    # Flax numbers modules as they are made, and Python makes the outer norm first.
    inner = dense(params["Dense_0"], layer_norm(params["LayerNorm_1"], items))
    return layer_norm(params["LayerNorm_0"], inner)


def history_encoder(params, events, where, *, heads):
    """`nn.user_state.HistoryEncoder`: `[B, T, D]` to `[B, D]`."""
    x = layer_norm(params["LayerNorm_0"], events + params["positions"].flip(0))
    last = transformer(params["Transformer_0"], x, where, heads=heads, causal=True)[:, -1]
    return last * where.any(dim=1, keepdim=True)


def request_encoder(params, request, *, heads):
    """`nn.user_state.RequestEncoder`: user state `[B, D]` and item encodings `[B, N, D]`."""
    table = params["FeatureEmbedding_0"]["table"]
    history, events = history_tokens(params, request)
    latest = history_encoder(
        params["HistoryEncoder_0"], history + events, request.history_where, heads=heads
    )
    user = embed(table, SPEC.user, request.user)
    context = embed(table, SPEC.context, request.context)
    state = mlp(params["MLP_0"], torch.cat([latest, user, context], dim=-1))
    items = encode_items(params, embed(table, SPEC.item, request.candidates))
    if "match" in params:
        items = items + (latest[:, None] * items) @ params["match"]["kernel"]
    return layer_norm(params["LayerNorm_2"], state), items


def fusion(params, user, items):
    """`nn.user_state.Fusion`: h `[B, N, D]`."""
    mine = layer_norm(params["LayerNorm_0"], dense(params["user"], user))
    theirs = layer_norm(params["LayerNorm_0"], dense(params["item"], items))
    return mlp(params["MLP_0"], mine[:, None] + theirs)


def candidate_states(params, request, *, heads):
    """The front of every list model: h `[B, N, D]` from ids."""
    user, items = request_encoder(params["request_encoder"], request, heads=heads)
    return fusion(params["fusion"], user, items)


def combine(entry, hidden, scores):
    """`nn.score_entry.combine`."""
    x = scores[..., None]
    if entry == "concatenate":
        return torch.cat([hidden, x], dim=-1)
    return {"none": hidden, "add": hidden + x, "weight": hidden * x}[entry]


def scored_head(params, hidden, scores, entry):
    """`nn.score_entry.ScoredHead`; `entry` "none" where the place is early."""
    hidden = combine(entry, hidden, scores)
    if "hidden" in params:
        hidden = functional.relu(dense(params["hidden"], hidden))
    return dense(params["output"], hidden)[..., 0]


def falling_places(scores, where):
    """Place of each real candidate in falling order of the scores, from 0; padding last."""
    falling = torch.where(where, scores, -1.0).argsort(dim=1, descending=True)
    return falling.argsort(dim=1)


def early_tokens(params, tokens, scores, entry):
    """`nn.score_entry.EarlyEntry` at place "early"; `params` None where it has none."""
    if entry == "add":
        return tokens + dense(params["Dense_0"], scores[..., None])
    joined = combine(entry, tokens, scores)
    return dense(params["Dense_0"], joined) if entry == "concatenate" else joined


def padded_batch(seed=5):
    """Draw a batch with padding everywhere: row 1 has no history, row 2 no candidates."""
    batch = factories.make_batch(seed=seed)
    where = batch.request.where.at[2].set(False)
    past = batch.request.history_where.at[1].set(False)
    request = batch.request.replace(where=where, history_where=past)
    return batch.replace(request=request, scores=batch.scores * where)


def assert_same(reranker, reference, *, batch=None, seed=0, scale=0.4, tolerance=1e-5, without=()):
    """Compare logits, and the gradients of one random projection of them, with the reference's.

    Gradients are those of all parameters, the embedding table included, and of the scores; their
    tolerance is relative to the largest of an array if that is above 1, and at most 1 % of it.
    `seed` and `scale` are those of the random parameters: choose them so that nothing saturates,
    as float32 would then compare noise. `without` names groups that the logits do not read.
    """
    batch = padded_batch() if batch is None else batch
    params = factories.random_params(reranker, batch, scale=scale, seed=seed)
    where = batch.request.where
    pull = np.random.default_rng(1).normal(size=where.shape).astype(np.float32)

    def project(params, scores):
        logits = types.apply(reranker, params, batch.request, scores)
        return jnp.where(where, logits * pull, 0.0).sum(), jnp.where(where, logits, 0.0)

    run = factories.quick_jit(jax.grad(project, argnums=(0, 1), has_aux=True))
    slopes, logits = run(params, batch.scores)
    weights, scores = to_torch((params, batch.scores), learned=True)
    request = SimpleNamespace(**{k: to_torch(v) for k, v in vars(batch.request).items()})
    expected = torch.where(request.where, reference(weights, request, scores), 0.0)
    (expected * torch.tensor(pull)).sum().backward()
    np.testing.assert_allclose(logits, expected.detach(), rtol=tolerance, atol=tolerance)
    assert set(without) <= set(weights)
    read = [name for name in weights if name not in without]
    _assert_slopes(*({n: tree[n] for n in read} for tree in (slopes[0], weights)), tolerance)
    if scores.grad is None:
        np.testing.assert_array_equal(slopes[1], 0.0)
    else:
        _assert_slopes(slopes[1], scores, tolerance)


def _assert_slopes(ours, leaves, tolerance):
    paths = jax.tree_util.tree_leaves_with_path(ours)
    for (path, slope), leaf in zip(paths, jax.tree.leaves(leaves), strict=True):
        largest = float(leaf.grad.abs().max())
        assert largest > 1e-4, f"{path}: no gradient to compare"
        np.testing.assert_allclose(
            slope,
            leaf.grad,
            rtol=tolerance,
            atol=min(tolerance * max(1.0, largest), 0.01 * largest),
            err_msg=str(path),
        )
