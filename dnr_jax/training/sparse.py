"""A step whose cost does not grow with the catalogue: it trains only the batch's rows of tables.

The players are wrapped, not changed: they see tables of which only the batch's rows are present.
The step of `training.step` runs on a state in which these rows replace the tables and moments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from dnr_jax.nn import tables
from dnr_jax.nn.embeddings import rows_read, table_rows
from dnr_jax.nn.history_tokens import history_alone
from dnr_jax.nn.tables import RowsOf
from dnr_jax.objectives import Terms
from dnr_jax.training.step import Game, Step, TrainState, make_step
from dnr_jax.types import Array, Batch, FeatureSpec, Params, Request


def make_sparse_step(
    game: Game,
    optimizer: optax.GradientTransformationExtraArgs,
    *,
    spec: FeatureSpec,
    players: tuple[str, ...],
    plays: bool,
    part: int | None = None,
) -> Step:
    """Make the step of `make_step` that updates only the batch's rows of the tables of `players`.

    The gradient is the dense one, since other rows have none; so are its norm and its clipping.
    The difference is that rows outside the batch do not move, neither by Adam's momentum nor by
    L2. On a batch that reads every row the step equals that of `make_step`.

    Args:
      game: see `make_step`.
      optimizer: its moments must have one row per row of their table.
      spec: the feature spec with which the players were built.
      players: those whose tables are updated by rows; () = none, which is `make_step`.
      plays: see `make_step`.
      part: see `make_step`.
    """
    if not players:
        return make_step(game, optimizer, plays=plays, part=part)

    def step(state: TrainState, batch: Batch, turn: Array) -> tuple[TrainState, Terms]:
        rows = batch_rows(state.params, spec, batch.request, players=players, plays=plays)
        inner = make_step(_reading(game, rows), optimizer, plays=plays, part=part)
        small, terms = inner(tables.gather(state, rows), batch, turn)
        return tables.scatter(state, small, rows), terms

    return step


def batch_rows(
    params: Params, spec: FeatureSpec, request: Request, *, players: tuple[str, ...], plays: bool
) -> RowsOf:
    """Find the distinct rows that a batch reads of each table: `int32 [R]` by the table's name.

    The generator reads none while it does not play (`plays=False`).
    """
    playing = players if plays else tuple(name for name in players if name != "generator")
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = tables.names(path)
        read = _ids(name, len(leaf), spec, request) if name[0] in players and leaf.ndim else None
        if read is not None:
            wanted = read if name[0] in playing else read[:0]
            found[name] = tables.distinct(wanted, rows=len(leaf))
    return found


def _ids(name: tables.Name, rows: int, spec: FeatureSpec, request: Request) -> Array | None:
    """List the rows that a batch reads of the parameter `name`; None if it is no such table."""
    if name[-1] == "table" and "list_positions" not in name:
        for part in ((spec, request), history_alone(spec, request)):
            if rows == table_rows(part[0]):
                return rows_read(*part)
    if name[-2:] == ("item", "embedding"):
        return request.candidates[..., 0].reshape(-1)
    if name[-2:] == ("user", "embedding"):
        return request.user[:, 0]
    return None


def _reading(game: Game, rows: RowsOf) -> Game:
    """Let the players read parameters in which the gathered rows replace the tables."""
    mine = {player: _below(rows, player) for player in ("reranker", "generator")}

    def on_rows(player: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(params: Params, *arguments: Any, **keywords: Any) -> Any:
            return function(tables.join(params, mine[player]), *arguments, **keywords)

        return run

    reranker, noise = game.reranker, game.noise
    return game._replace(
        reranker=reranker._replace(
            encode=on_rows("reranker", reranker.encode), decode=on_rows("reranker", reranker.decode)
        ),
        noise=noise and noise._replace(sample=on_rows("generator", noise.sample)),
        own_loss=game.own_loss and on_rows("reranker", game.own_loss),
    )


def _below(rows: RowsOf, player: str) -> RowsOf:
    return {name[1:]: ids for name, ids in rows.items() if name[0] == player}
