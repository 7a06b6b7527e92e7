"""A generator that writes a list as the code sequences of its items, one code after the other.

Every item has a fixed sequence of L codes (`semantic_ids`), the same in every request. With h_k
the decoder's state at place k (from the items before it and, by attention, from the candidates),
the next code c of the item at place k, after the codes p, has the probability

    p(c | k, p)  ~  e^{t(c)} sum_{i in candidates left, under p + c} e^{b_i}

with `t(c) = MLP(h_k + sum of E over p + level) . E_level[c] / sqrt(D)`. The sum restricts the
generator to sequences of candidates that are not yet listed. b is 0, or the score head's logit if
the scores enter late; with t = 0 the next item would then follow the softmax of b. Among candidates
with the same sequence the softmax of b decides.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.attention import Transformer, TransformerLayer
from dnr_jax.nn.dropout import Drop, grouped, identity
from dnr_jax.nn.layers import MLP
from dnr_jax.nn.score_entry import EarlyEntry, ScoredHead
from dnr_jax.nn.slates import chosen_before, take_items
from dnr_jax.nn.trunk import Trunk
from dnr_jax.nn.user_state import Fusion, RequestEncoder
from dnr_jax.types import Array, FeatureSpec, Request

# Lower bound of b relative to the best candidate's: e^b must not underflow in float32.
LEAST = -60.0


class Scene(NamedTuple):
    """The inputs from which lists are written.

    Attributes:
      user: `float32 [B, D]`.
      items: the candidates as the decoder sees them, `float32 [B, N, D]`.
      codes: their sequences, `int32 [B, N, L]`.
      bias: b, `float32 [B, N]`.
      where: `bool [B, N]`.
    """

    user: Array
    items: Array
    codes: Array
    bias: Array
    where: Array


class ListDecoder(nn.Module):
    """Layers in which places of a list attend to those before them, then to the candidates.

    Attributes:
      layers, heads, feed_forward: see `nn.attention.Transformer`.
    """

    layers: int
    heads: int
    feed_forward: int

    @nn.compact
    def __call__(self, x: Array, items: Array, where: Array, *, drop: Drop) -> Array:
        """Map G lists of places `float32 [B, G, K, D]` and items `[B, N, D]` to `[B, G, K, D]`."""
        batch, group, size, width = x.shape
        every = jnp.ones((batch * group, size), bool)
        for number in range(self.layers):
            among, across = (
                TransformerLayer(self.heads, self.feed_forward, name=f"{part}_{number}")
                for part in ("among", "across")
            )
            flat = x.reshape(batch * group, size, width)
            flat = among(flat, flat, every, causal=True, drop=grouped(drop, group))
            flat = flat.reshape(batch, group * size, width)
            x = across(flat, items, where, causal=False, drop=drop).reshape(x.shape)
        return x


class TokenGenerator(nn.Module):
    """Write lists of a request's candidates; see the module's docstring.

    As a scorer its logit of a candidate is `b_i + sum of t over its sequence` at the first place.

    Attributes:
      spec: column names and vocabulary sizes.
      trunk: sizes, and how x enters.
      slate_size: K.
      table: `int32 [V, L]`, the sequences by item id, with codes below `codes`.
      codes: size of each level's vocabulary.
    """

    spec: FeatureSpec
    trunk: Trunk
    slate_size: int
    table: np.ndarray
    codes: int

    def setup(self) -> None:
        """Make the blocks, in the order in which they run."""
        width, scores, blocks = self.trunk.width, self.trunk.scores, self.trunk.blocks
        self.request_encoder = RequestEncoder(self.spec, self.trunk)
        self.fusion = Fusion(width)
        self.early_entry = EarlyEntry(scores)
        self.list_encoder = Transformer(*blocks, causal=False)
        self.decoder = ListDecoder(*blocks)
        self.reader = MLP((width,), width)
        levels, normal = self.table.shape[1], nn.initializers.normal
        self.code_vectors = self.param("codes", normal(1.0), (levels, self.codes, width))
        self.levels = self.param("levels", normal(1.0), (levels, width))
        self.places = self.param("places", normal(1.0), (self.slate_size, width))
        self.head = ScoredHead(scores, width)

    def encode(self, request: Request, *, drop: Drop) -> tuple[Array, ...]:
        """Return u, items and codes, and the first place's t unless the items need scores."""
        user, items = self.request_encoder(request, drop=drop)
        items = self.fusion(user, items, drop=drop)
        codes = jnp.take(jnp.asarray(self.table), request.candidates[..., 0], axis=0, mode="clip")
        if self.trunk.scores.early:
            return user, items, codes
        items = self.list_encoder(items, request.where, drop=drop)
        scene = Scene(user, items, codes, jnp.zeros(request.where.shape), request.where)
        return user, items, codes, self._first(scene, drop=drop)

    def decode(
        self, memory: tuple[Array, ...], scores: Array, where: Array, *, drop: Drop
    ) -> Array:
        """Return the logits `[B, N]`."""
        scene = self.scene(memory, scores, where, drop=drop)
        first = self._first(scene, drop=drop) if self.trunk.scores.early else memory[3]
        return first + scene.bias

    def scene(self, memory: tuple[Array, ...], scores: Array, where: Array, *, drop: Drop) -> Scene:
        """Add the scores to the memory."""
        user, items, codes = memory[:3]
        if self.trunk.scores.early:
            items = self.list_encoder(self.early_entry(items, scores), where, drop=drop)
        bias = self.head(items, scores) if self.trunk.scores.late else jnp.zeros(where.shape)
        return Scene(user, items, codes, bias, where)

    def log_probability(self, scene: Scene, lists: Array, *, drop: Drop) -> Array:
        """Compute each item's log-probability given those before it: `float32 [B, G, K]`.

        Args:
          scene: scene of the request.
          lists: `int32 [B, G, K]`; an empty place (-1) gives 0 and is allowed only at the end.
          drop: dropout.
        """
        codes, prefixes = take_items(scene.codes, lists), take_items(self._prefixes(scene), lists)
        states = self._read(
            self._places(scene, lists, drop=drop)[..., None, :] + prefixes, drop=drop
        )
        logits = jnp.einsum("bgkld,lcd->bgklc", states, self.code_vectors) / self.trunk.width**0.5
        left = scene.where[:, None, None] & ~chosen_before(lists, scene.where.shape[1])
        same = codes[..., None] == jnp.swapaxes(scene.codes, 1, 2)[:, None, None]  # [B,G,K,L,N]
        under = jnp.cumprod(jnp.concatenate([left[..., None, :], same], axis=-2), axis=-2)
        weights = under * _powers(scene)[:, None, None, None]
        masses = jnp.einsum("bgkln,bnlc->bgklc", weights[..., :-1, :], self._marks(scene))
        steps = _log_chances(logits, masses)
        steps = jnp.take_along_axis(steps, codes[..., None], axis=-1)[..., 0].sum(axis=-1)
        own = take_items(jnp.log(_powers(scene)), lists)
        twins = weights[..., -1, :].sum(axis=-1)
        return jnp.where(lists >= 0, steps + own - jnp.log(jnp.where(twins > 0, twins, 1.0)), 0.0)

    def write(self, scene: Scene, luck: Array | None, *, group: int) -> Array:
        """Write lists place by place, without dropout: `int32 [B, group, K]`, -1 = nothing left.

        Args:
          scene: scene of the request.
          luck: uniform on [0, 1), `float32 [B, group, K, L + 1]`, to draw from the generator; None
            takes the most likely code each time.
          group: lists per request.
        """
        shape = (scene.where.shape[0], group)

        def fill(
            generator: TokenGenerator, state: tuple[Array, Array], place: Array
        ) -> tuple[tuple[Array, Array], None]:
            lists, left = state
            here = generator._places(scene, lists, drop=identity)[:, :, place]
            draws = None if luck is None else luck[:, :, place]
            item = generator._write_item(scene, here, left, draws)
            taken = item[..., None] == jnp.arange(left.shape[-1])[None, None]
            return (lists.at[:, :, place].set(item), left & ~taken), None

        empty = jnp.full((*shape, self.slate_size), -1, jnp.int32)
        left = jnp.broadcast_to(scene.where[:, None], (*shape, scene.where.shape[1]))
        run = nn.scan(fill, variable_broadcast="params", split_rngs={"params": False})
        return run(self, (empty, left), jnp.arange(self.slate_size))[0][0]

    def _write_item(self, scene: Scene, here: Array, left: Array, luck: Array | None) -> Array:
        """Choose one of the items left by its codes: `[B, G, D]` and `[B, G, N]` to `[B, G]`."""
        marks, powers = self._marks(scene), _powers(scene)[:, None]
        under, state = left, here
        for level in range(scene.codes.shape[-1]):
            vectors = self.code_vectors[level]
            read = self.reader(state + self.levels[level][None, None], drop=identity)
            masses = jnp.einsum("bgn,bnc->bgc", under * powers, marks[:, :, level])
            chances = _log_chances(read @ vectors.T / self.trunk.width**0.5, masses)
            code = _choose(chances, masses > 0, None if luck is None else luck[..., level])
            under = under & (scene.codes[:, None, :, level] == code[..., None])
            state = state + vectors[code]
        alike = jnp.broadcast_to(jnp.log(powers), under.shape)
        item = _choose(alike, under, None if luck is None else luck[..., -1])
        return jnp.where(left.any(axis=-1), item, -1).astype(jnp.int32)

    def _first(self, scene: Scene, *, drop: Drop) -> Array:
        """Compute the sum of t over each candidate's sequence at the first place: `[B, N]`."""
        empty = jnp.full((scene.where.shape[0], 1, 1), -1, jnp.int32)
        here = self._places(scene, empty, drop=drop)[:, 0, :, None]
        states = self._read(here + self._prefixes(scene), drop=drop)
        logits: Array = (states * self._vectors(scene)).sum(axis=(-1, -2)) / self.trunk.width**0.5
        return logits

    def _places(self, scene: Scene, lists: Array, *, drop: Drop) -> Array:
        """Return the state h before each place is filled: `[B, G, K]` to `[B, G, K, D]`."""
        items = take_items(self._vectors(scene).sum(axis=2), lists[..., :-1])
        start = jnp.broadcast_to(
            scene.user[:, None, None], (*lists.shape[:2], 1, scene.user.shape[-1])
        )
        tokens = jnp.concatenate([start, items], axis=2) + self.places[None, None, : lists.shape[2]]
        return self.decoder(tokens, scene.items, scene.where, drop=drop)

    def _read(self, x: Array, *, drop: Drop) -> Array:
        """Map place plus codes so far, `[..., L, D]` with an entry per level, to states."""
        return self.reader(
            x + self.levels.reshape((1,) * (x.ndim - 2) + self.levels.shape), drop=drop
        )

    def _vectors(self, scene: Scene) -> Array:
        """Return E of each candidate's codes: `[B, N, L, D]`."""
        levels = jnp.arange(scene.codes.shape[-1])
        return self.code_vectors[levels[None, None], scene.codes]

    def _prefixes(self, scene: Scene) -> Array:
        """Return the sum of E over the codes before each level: `[B, N, L, D]`."""
        vectors = self._vectors(scene)
        return jnp.cumsum(vectors, axis=2) - vectors

    def _marks(self, scene: Scene) -> Array:
        """Mark each candidate's code of each level: `float32 [B, N, L, codes]`."""
        return jax.nn.one_hot(scene.codes, self.codes)


def _powers(scene: Scene) -> Array:
    """Compute e^b of real candidates, relative to the request's best: `[B, N]`."""
    logits = ops.mask_logits(scene.bias, scene.where)
    best = jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    return jnp.exp(jnp.maximum(logits - best, LEAST))


def _log_chances(logits: Array, masses: Array) -> Array:
    """Compute `log softmax(t + log mass)` over codes of at least one candidate."""
    possible = masses > 0
    return ops.masked_log_softmax(logits + jnp.log(jnp.where(possible, masses, 1.0)), possible)


def _choose(logits: Array, where: Array, luck: Array | None) -> Array:
    """Choose along the last axis: the best, or a draw if `luck` `[...]` is uniform on [0, 1)."""
    if luck is None:
        return jnp.argmax(jnp.where(where, logits, -jnp.inf), axis=-1)
    totals = jnp.cumsum(jnp.where(where, jnp.exp(logits), 0.0), axis=-1)
    # 1 - luck is in (0, 1], so entries outside `where`, which add nothing, are never chosen.
    return (totals < (1 - luck)[..., None] * totals[..., -1:]).sum(axis=-1)
