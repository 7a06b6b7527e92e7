"""Train and score on 1, 2, 4 and 8 fake devices; print how far the numbers are apart, as JSON.

A script: the number of devices is fixed when JAX starts. `test_sharding.py` runs it.
"""

import json
import sys
import tempfile
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

sys.path.insert(0, str(Path(__file__).parents[1]))

import factories

from dnr_jax import divergences, noise
from dnr_jax.data import loader
from dnr_jax.evaluation import score_split, score_stream
from dnr_jax.io import checkpoints, model_files
from dnr_jax.nn.adapter import wrap
from dnr_jax.nn.embeddings import FeatureEmbedding
from dnr_jax.nn.score_entry import ScoredHead, ScoreUse
from dnr_jax.objectives import ObjectiveSettings
from dnr_jax.training import sharding
from dnr_jax.training.epoch import alternate, make_epoch, rows_of_epoch, stack_states
from dnr_jax.training.optimizers import PLAYERS, OptimizerSettings, two_player_optimizer
from dnr_jax.training.sparse import make_sparse_step
from dnr_jax.training.step import Game, init_state
from dnr_jax.training.stream import streamed
from dnr_jax.types import FeatureSpec, Task, apply

# Neither divides by 4 or 8, and the last of four batches is short.
REQUESTS, BATCH, SEEDS = 37, 10, [0, 1]
PLAN = alternate(4, generator_updates=1, reranker_updates=1)
# A large eps: Adam would blow the rounding of a gradient that should be 0 up to a whole step.
ADAM = OptimizerSettings(learning_rate=1e-2, eps=1e-2, decay_factor=0.5, decay_every=7)
OPTIMIZER = two_player_optimizer(ADAM, ADAM, steps_per_epoch=(1, 1))
COMPILED: list[str] = []  # names of the programs that were compiled
DATA = jax.tree.map(np.asarray, factories.make_batch(B=REQUESTS))


class Linear(nn.Module):
    """Every candidate by itself, from the shared table, with dropout: it compiles in a second."""

    spec: FeatureSpec

    def setup(self):
        self.embedding = FeatureEmbedding(self.spec, 8)
        self.head = ScoredHead(ScoreUse("concatenate", "late"), 8)

    def encode(self, request, *, drop):
        parts = self.embedding(request)
        return drop(parts.items + parts.history_items.mean(axis=1, keepdims=True))

    def decode(self, items, scores, where, *, drop):
        return self.head(items, scores)


class Run:
    """Two seeds trained for two epochs of both players on a layout, and one of them scored."""

    def __init__(self, devices, *, shard_tables=False, stream=0, seeds="map", sparse=()):
        self.layout = sharding.make_layout(count=devices, shard_tables=shard_tables)
        spec = sharding.rounded(factories.make_spec(), self.layout)
        self.game = _game(spec)
        put = partial(sharding.put_batches, self.layout)
        step = make_sparse_step(self.game, OPTIMIZER, spec=spec, players=sparse, plays=True)
        step = sharding.split_step(self.layout, step)
        take, data = loader.take, sharding.replicate(self.layout, DATA)
        self.program = epoch = make_epoch(step, seeds=seeds, take=loader.pick if stream else take)
        if stream:
            epoch, data = streamed(epoch, PLAN, batches=stream, put=put), DATA
        self.states, self.terms = self.start(), []
        COMPILED.clear()
        for number in range(2):
            rows = rows_of_epoch(REQUESTS, BATCH, PLAN, seeds=SEEDS, epoch=number)
            self.states, terms = epoch(self.states, data, rows, PLAN.turns)
            self.terms.append(jax.tree.map(np.asarray, terms))
        self.compiled = COMPILED.count("mapped") + COMPILED.count("run")
        score = sharding.split_score(self.layout, partial(apply, self.game.reranker))
        theta = jax.tree.map(lambda a: a[0], self.states.params["reranker"])
        how = partial(score_stream, batches=3, put=put) if stream else score_split
        self.logits = np.asarray(how(score, theta, DATA, batch_size=BATCH))

    def start(self):
        example = jax.tree.map(lambda a: jnp.asarray(a[:1]), DATA)
        parts = (self.game.reranker, self.game.noise, OPTIMIZER, example)
        make = partial(sharding.build, self.layout, lambda key: init_state(key, *parts))
        return stack_states([make(jax.random.key(seed)) for seed in SEEDS])

    def split_terms(self):
        """Return the losses of all updates, and the raw gradient norms `[epochs, U]` of a seed."""
        losses = ("direct", "denoise", "adversarial", "regulariser")
        norms = [t["reranker_gradient"][0] + t["generator_gradient"][0] for t in self.terms]
        return [[t[name] for name in losses] for t in self.terms], norms

    def table(self):
        return self.states.params["reranker"]["embedding"]["table"]

    def program_text(self):
        shapes = (self.states, sharding.replicate(self.layout, DATA))
        rows = rows_of_epoch(REQUESTS, BATCH, PLAN, seeds=SEEDS, epoch=0)
        return self.program.lower(*shapes, rows, PLAN.turns).compile().as_text()


def _game(spec):
    base, sizes = noise.build_draw("gaussian"), {"width": 8, "embedding_width": 4}
    generator = noise.build_generator("learned_direct", Task(spec), base, **sizes)
    # Smooth in the scores: see `test_training_gives_the_numbers_of_one_device`.
    divergence = divergences.build("density_exact")
    return Game(wrap(Linear(spec), dropout=0.2), generator, divergence, None, ObjectiveSettings())


def distance(one, other):
    """Return the largest relative difference, of numbers below 1 the absolute one."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    gaps = [np.max(np.abs(a - b) / np.maximum(np.abs(b), 1.0), initial=0) for a, b in pairs]
    return float(max(gaps))


def compare(run, reference):
    losses, gradients = zip(run.split_terms(), reference.split_terms(), strict=True)
    return {
        "losses": distance(*losses),
        "first gradients": distance(*[g[0][:2] for g in gradients]),
        "params": distance(host(run.states.params), host(reference.states.params)),
        "logits": distance(run.logits, reference.logits),
        "compiled": run.compiled,
    }


def host(tree):
    return jax.tree.map(np.asarray, tree)


def restored(run, devices):
    """Save the state of a run and restore it on other devices: how far is it then?"""
    layout = sharding.make_layout(count=devices, shard_tables=run.layout.shard_tables)
    whole = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), run.states)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints.save(Path(folder), "last", run.states, {})
        state = sharding.place(layout, checkpoints.restore(Path(folder), "last", whole)[0])
    parts = state.params["reranker"]["embedding"]["table"].sharding.num_devices
    keys = [jax.random.key_data(s.key) for s in (state, run.states)]
    same = distance(host(state.params), host(run.states.params)) + distance(*map(host, keys))
    return {"distance": same, "devices": parts}


def packed(run):
    """Save a seed of a run as a model and read it: how far is it then from that seed?"""
    theta = jax.tree.map(lambda a: a[0], run.states.params["reranker"])
    with tempfile.TemporaryDirectory() as folder:
        model_files.save(Path(folder), dict.fromkeys(model_files.NEEDED), theta)
        found = model_files.load(Path(folder))[1]
    kinds = {type(leaf).__name__ for leaf in jax.tree.leaves(found)}
    return {"distance": distance(found, host(theta)), "kinds": sorted(kinds)}


def note_compilation(event, seconds, **about):
    if event == "/jax/core/compile/backend_compile_duration":
        COMPILED.append(about["fun_name"].removeprefix("jit(").removesuffix(")"))


def main():
    jax.monitoring.register_event_duration_secs_listener(note_compilation)
    one = Run(1)
    cut = Run(1, shard_tables=True)  # the parameters of sharded tables, on one device
    eight = Run(8, shard_tables=True)
    lazy_one = Run(1, shard_tables=True, sparse=tuple(PLAYERS))
    lazy = Run(8, shard_tables=True, sparse=tuple(PLAYERS))
    shards = eight.table().addressable_shards
    texts = eight.program_text() + lazy.program_text()
    gathers = [line for line in texts.splitlines() if " all-gather(" in line]
    rows = eight.table().shape[-2]
    found = {
        "devices 8": compare(Run(8), one),
        "devices 4, seeds vmapped": compare(Run(4, seeds="vmap"), one),
        "devices 8, streamed": compare(Run(8, stream=2), one),
        "devices 8, tables sharded": compare(eight, cut),
        "devices 8, tables sharded, lazy": compare(lazy, lazy_one),
        "restored": restored(eight, 2),
        "packed": packed(eight),
        "table rows": [rows, *{shard.data.shape[-2] for shard in shards}],
        "gathers of whole tables": [line for line in gathers if f"[{rows}," in line],
        "reductions": sum(" all-reduce(" in x for x in eight.program_text().splitlines()),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
