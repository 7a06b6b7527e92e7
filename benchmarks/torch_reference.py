"""DNR on PRM in PyTorch, for comparison in `throughput`; equal to ours (tests/benchmarks).

Plain and idiomatic: every layer computes all positions, attention is PyTorch's own fused kernel,
one pass of the encoder serves x and x' where the scores enter late. The functions run on trees of
tensors with the names of our own parameters, so that weights are copied as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from torch.nn import functional

from benchmarks import standard_case
from dnr_jax.divergences.kernels import FFT_FLOOR, GRID, LOG_ZERO, TAIL_GRID
from dnr_jax.types import Batch

Tree = dict[str, Any]
Columns = dict[str, torch.Tensor]
BANDWIDTH = 0.05
LAMBDA_C, LAMBDA_M, LAMBDA_ADV, LAMBDA_X = 0.4, 0.5, 1.0, 1.0
CLIP = 5.0
# Our tables are stacked in order of name: items, then users.
FIRST_USER = standard_case.SPEC.sizes["item"]


def to_torch(tree: Any, device: str, *, learned: bool = False) -> Any:
    """Copy a tree of arrays to tensors; `learned` ones collect gradients."""
    return jax.tree.map(
        lambda a: torch.tensor(np.asarray(a), device=device, requires_grad=learned), tree
    )


def columns(batch: Batch, device: str) -> Columns:
    """Copy the parts of a batch that the model reads."""
    request = batch.request
    arrays = {
        "user": request.user[:, 0].astype(np.int64),
        "history": request.history[..., 0].astype(np.int64),
        "candidates": request.candidates[..., 0].astype(np.int64),
        "history_where": request.history_where,
        "where": request.where,
        "scores": batch.scores,
        "labels": batch.labels,
        "weights": batch.weights,
    }
    return to_torch(arrays, device)


class Network:
    """PRM, score entry "concatenate", late or early.

    Attributes:
      knobs: of `dnr_jax.rerankers.prm.PRMSettings`.
      rate: of dropout; 0 switches it off.
    """

    def __init__(self, knobs: dict[str, Any], rate: float) -> None:
        self.heads, self.early = knobs["heads"], knobs["score_place"] == "early"
        self.scored, self.rate = knobs["score_entry"] == "concatenate", rate

    def encode(self, params: Tree, batch: Columns) -> torch.Tensor:
        """Return H `[B, N, D]`, the tokens for early entry."""
        front, fusion = params["request_encoder"], params["fusion"]
        table = front["FeatureEmbedding_0"]["table"]
        history = self._items(front, functional.embedding(batch["history"], table))
        items = self._items(front, functional.embedding(batch["candidates"], table))
        user = functional.embedding(batch["user"] + FIRST_USER, table)
        state = torch.cat([self._history(front["HistoryEncoder_0"], history, batch), user], dim=-1)
        state = norm(front["LayerNorm_2"], self._mlp(front["MLP_0"], state))
        mine = norm(fusion["LayerNorm_0"], dense(fusion["user"], state))
        theirs = norm(fusion["LayerNorm_0"], dense(fusion["item"], items))
        tokens = self._mlp(fusion["MLP_0"], mine[:, None] + theirs)
        return tokens if self.early else self._transformer(params["list_encoder"], tokens, batch)

    def decode(
        self, params: Tree, memory: torch.Tensor, scores: torch.Tensor, batch: Columns
    ) -> torch.Tensor:
        """Return logits `[B, N]`."""
        joined = torch.cat([memory, scores[..., None]], dim=-1) if self.scored else memory
        head = params["head"]
        if not self.early:
            return dense(head["output"], functional.relu(dense(head["hidden"], joined)))[..., 0]
        tokens = dense(params["early_entry"]["Dense_0"], joined)
        hidden = self._transformer(params["list_encoder"], tokens, batch)
        return dense(head["output"], hidden)[..., 0]

    def _items(self, params: Tree, rows: torch.Tensor) -> torch.Tensor:
        # Flax numbers modules in order of creation, and Python creates the outer norm first.
        return norm(
            params["LayerNorm_0"], dense(params["Dense_0"], norm(params["LayerNorm_1"], rows))
        )

    def _history(self, params: Tree, history: torch.Tensor, batch: Columns) -> torch.Tensor:
        tokens = norm(params["LayerNorm_0"], self._drop(history + params["positions"].flip(0)))
        seen = batch["history_where"]
        length = seen.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=seen.device).tril()
        mask = seen[:, None, None, :] & causal
        return self._layers(params["Transformer_0"], tokens, mask)[:, -1]

    def _transformer(self, params: Tree, tokens: torch.Tensor, batch: Columns) -> torch.Tensor:
        return self._layers(params, tokens, batch["where"][:, None, None, :])

    def _layers(self, params: Tree, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        for number in range(len(params)):
            layer = params[f"layer_{number}"]
            attended = self._attention(layer["Attention_0"], x, mask)
            x = norm(layer["LayerNorm_0"], x + self._drop(attended))
            hidden = self._drop(functional.relu(dense(layer["Dense_0"], x)))
            x = norm(layer["LayerNorm_1"], x + self._drop(dense(layer["Dense_1"], hidden)))
        return x

    def _attention(self, params: Tree, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        size, length, width = x.shape
        fused = functional.linear(x, params["kernel"].T, params["bias"].reshape(-1))
        parts = fused.view(size, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*parts.unbind(0), attn_mask=mask)
        return dense(params["output"], mixed.transpose(1, 2).reshape(size, length, width))

    def _mlp(self, params: Tree, x: torch.Tensor) -> torch.Tensor:
        hidden = self._drop(functional.relu(dense(params["Dense_0"], x)))
        return dense(params["Dense_1"], norm(params["LayerNorm_0"], hidden))

    def _drop(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(x, self.rate) if self.rate else x


def dense(params: Tree, x: torch.Tensor) -> torch.Tensor:
    return functional.linear(x, params["kernel"].T, params.get("bias"))


def norm(params: Tree, x: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(x, x.shape[-1:], params["scale"], params["bias"], eps=1e-6)


def bce(logits: torch.Tensor, batch: Columns) -> torch.Tensor:
    each = functional.binary_cross_entropy_with_logits(logits, batch["labels"], reduction="none")
    return (each * batch["weights"]).sum() / batch["weights"].sum()


def plain_loss(network: Network, params: Tree, batch: Columns) -> torch.Tensor:
    """Compute L_direct."""
    memory = network.encode(params, batch)
    return bce(network.decode(params, memory, batch["scores"], batch), batch)


def reranker_loss(
    network: Network, params: Tree, batch: Columns, noisy: torch.Tensor
) -> torch.Tensor:
    """Compute L_direct + lambda_m L_z."""
    memory = network.encode(params, batch)
    direct, denoise = (
        bce(network.decode(params, memory, x, batch), batch) for x in (batch["scores"], noisy)
    )
    return direct + LAMBDA_M * denoise


def generator_loss(
    judge: Network,
    params: Tree,
    phi: Tree,
    batch: Columns,
    eps: torch.Tensor,
    *,
    lambda_x: float = LAMBDA_X,
) -> torch.Tensor:
    """Compute lambda_adv L_adv + lambda_x L_x; `judge` has no dropout and is not learned here."""
    noisy = generate(phi, batch, eps)
    with torch.no_grad():
        memory = judge.encode(params, batch)
    adversarial = -bce(judge.decode(params, memory, noisy, batch), batch)
    return LAMBDA_ADV * adversarial + lambda_x * density_kl(noisy, batch["scores"])


def heuristic(batch: Columns, eps: torch.Tensor) -> torch.Tensor:
    """Compute x' of Eq. 4 of the DNR paper, full lists only."""
    mixed = (1 - LAMBDA_C) * batch["labels"] + LAMBDA_C * eps
    low, high = mixed.amin(dim=1, keepdim=True), mixed.amax(dim=1, keepdim=True)
    return (mixed - low) / (high - low)


def draw(batch: Columns) -> torch.Tensor:
    """Draw Beta(1/2, 1/2) noise as PyTorch does."""
    half = torch.full((), 0.5, device=batch["scores"].device)
    return torch.distributions.Beta(half, half).sample(batch["scores"].shape)


def generate(phi: Tree, batch: Columns, eps: torch.Tensor) -> torch.Tensor:
    """Compute x' of the learned generator (`dnr_jax.noise.learned_direct`, output sigmoid)."""
    item = functional.embedding(batch["candidates"], phi["item"]["embedding"])
    user = functional.embedding(batch["user"], phi["user"]["embedding"])
    scalars = torch.stack([batch["labels"], eps], dim=-1)
    hidden = dense(phi["scalar_layer"], scalars) + dense(phi["item_layer"], item)
    hidden = hidden + dense(phi["user_layer"], user)[:, None]
    return torch.sigmoid(dense(phi["output_layer"], functional.relu(hidden)))[..., 0]


def density_kl(generated: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
    """Compute L_x by binned kernel densities (`dnr_jax.divergences.density_kl`)."""
    points, samples = generated.reshape(-1), observed.reshape(-1)
    return (log_density(points, points) - log_density(points, samples)).mean()


def log_density(points: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
    """Log of the kernel sum, up to the constant that a difference of two drops."""
    smooth = _fft_smooth(_bins(samples, GRID))
    bulk = _interpolate(torch.log(smooth.clamp_min(0.5 * FFT_FLOOR)), points)
    tail = _interpolate(_log_smooth(_bins(samples, TAIL_GRID)), points)
    return torch.where(bulk > math.log(FFT_FLOOR), bulk, tail)


def _cells(values: torch.Tensor, nodes: int) -> tuple[torch.Tensor, torch.Tensor]:
    position = values * (nodes - 1)
    left = position.detach().floor().clamp(0, nodes - 2).long()
    return left, position - left


def _bins(values: torch.Tensor, nodes: int) -> torch.Tensor:
    left, share = _cells(values, nodes)
    counts = torch.zeros(nodes, device=values.device)
    counts = counts.index_add(0, left, 1 - share).index_add(0, left + 1, share)
    return counts / len(values)


def _interpolate(heights: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    left, share = _cells(points, len(heights))
    return heights[left] * (1 - share) + heights[left + 1] * share


def _fft_smooth(counts: torch.Tensor) -> torch.Tensor:
    nodes = len(counts)
    lags = np.minimum(np.arange(2 * nodes), 2 * nodes - np.arange(2 * nodes))
    kernel = np.exp(-0.5 * (lags / (nodes - 1) / BANDWIDTH) ** 2)
    spectrum = torch.as_tensor(np.fft.rfft(kernel).real, dtype=torch.float32, device=counts.device)
    return torch.fft.irfft(torch.fft.rfft(counts, 2 * nodes) * spectrum, 2 * nodes)[:nodes]


def _log_smooth(counts: torch.Tensor) -> torch.Tensor:
    grid = torch.arange(len(counts), device=counts.device) / (len(counts) - 1)
    exponents = -0.5 * ((grid[:, None] - grid) / BANDWIDTH) ** 2
    some = counts > 0
    logs = torch.where(some, torch.log(torch.where(some, counts, 1.0)), LOG_ZERO)
    return torch.logsumexp(exponents + logs, dim=1)


class Player:
    """One player's parameters and its Adam, as `dnr_jax.training.optimizers.adam_with_l2`."""

    def __init__(self, params: Tree, learning_rate: float, weight_decay: float) -> None:
        self.params, self.leaves = params, jax.tree.leaves(params)
        self.adam = torch.optim.Adam(
            self.leaves, learning_rate, (0.9, 0.98), eps=1e-6, weight_decay=weight_decay, fused=True
        )

    def update(self, loss: Callable[..., torch.Tensor], *arguments: Any) -> None:
        self.adam.zero_grad(set_to_none=True)
        loss(*arguments).backward(inputs=self.leaves)
        torch.nn.utils.clip_grad_norm_(self.leaves, CLIP)
        self.adam.step()
