"""From `config.data` to prepared arrays: real files if a path is given, else simulated ones."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from dnr_jax import data as data_room
from dnr_jax import retrievers as retrievers_room
from dnr_jax.data import candidates, interactions, lists, protocols, recflow, store
from dnr_jax.data.movielens import reader
from dnr_jax.data.movielens import simulator as movielens_simulator
from dnr_jax.data.recflow import simulator as recflow_simulator
from dnr_jax.data.store import Prepared, Writer
from dnr_jax.retrievers import cross_fit

_LOG = logging.getLogger(__name__)

Config = Mapping[str, Any]


class Dataset(NamedTuple):
    """How one kind of data set is prepared, and under which candidate protocols."""

    protocols: tuple[str, ...]
    prepare: Callable[[Config, Path], Prepared]


def prepare(config: Config) -> Prepared:
    """Return the prepared data set of a config, from the cache if nothing has changed.

    Raises:
      FileNotFoundError: `config.data.path` or a file in it does not exist.
      ValueError: the files or the options are not usable; see the loaders.
    """
    cache = Path(config["cache"]).expanduser()
    prepared = DATASETS[config["data"]["name"]].prepare(config, cache)
    _describe(config, prepared)
    return prepared


def _describe(config: Config, prepared: Prepared) -> None:
    """Tell the user what was found; the whole report goes to the run folder's audit."""
    report = prepared.report
    sizes = ", ".join(f"{len(s.request_id)} {name}" for name, s in prepared.splits.items())
    _LOG.info("data %s: requests %s", prepared.fingerprint, sizes)
    if "retriever" in report:
        quality = report["retriever"]["test"]
        numbers = ", ".join(f"{n} {v:.3f}" for n, v in quality.items() if isinstance(v, float))
        _LOG.info("retriever %s on test: %s", config["retriever"]["name"], numbers)
    if "rank_base" in report:
        found = report["rank_valid_fraction"].items()  # None for a flag that no row carries
        shares = ", ".join(f"{flag} {share:.0%}" for flag, share in found if share is not None)
        _LOG.info("rank_index starts at %s; valid: %s", report["rank_base"]["rank_index"], shares)
    for warning in report.get("warnings", []):
        _LOG.warning("data: %s", warning)


def _recflow(config: Config, cache: Path) -> Prepared:
    knobs = dict(config["data"])
    path = _source(knobs, cache, recflow_simulator.simulate)
    span = {"period": knobs["period"], "days": knobs["days"]}
    recflow.check(path, **span)
    shared = {"size": config["candidates"]["size"], "slate": config["eval"]["k"]}
    names = {field.name for field in dataclasses.fields(recflow.Options)}
    own = {name: value for name, value in knobs.items() if name in names}
    options = recflow.Options(**own, **shared, seed=config["seed"], progress=True)
    recipe = {
        "inputs": [store.file_signature(file) for file in recflow.inputs(path, **span)],
        "options": dataclasses.asdict(options),
        "code": store.code_signature(data_room),
    }
    return store.prepare(
        cache / "prepared", recipe, lambda writer: recflow.build(writer, path, options=options)
    )


def _movielens(config: Config, cache: Path) -> Prepared:
    knobs = dict(config["data"])
    path = _source(knobs, cache, movielens_simulator.simulate)
    options = protocols.Options(
        **config["candidates"], score=config["retriever"]["score"], seed=config["seed"]
    )
    options.check(config["eval"]["k"])
    recipe = {
        "inputs": [store.file_signature(file) for file in reader.inputs(path)],
        "options": {
            name: config[name] for name in ("data", "candidates", "retriever", "eval", "seed")
        },
        "code": store.code_signature(data_room, retrievers_room),
    }

    def build(writer: Writer) -> None:
        _build_movielens(writer, path, config, options)

    return store.prepare(cache / "prepared", recipe, build)


def _build_movielens(
    writer: Writer, path: Path, config: Config, options: protocols.Options
) -> None:
    """Ratings -> lists -> retriever, trained on training lists only -> candidate sets."""
    knobs, seed = config["data"], config["seed"]
    ratings = reader.read(path, positive_rating=knobs["positive_rating"])
    core = interactions.k_core(ratings, core=knobs["core"])
    reader.check_published(core)
    requests = lists.build(core, slate=config["eval"]["k"], history=knobs["history"])
    own = {n: v for n, v in config["retriever"].items() if n not in ("name", "cross_fit", "score")}
    name = config["retriever"]["name"]
    retriever = retrievers_room.build(name, **(own if name == "matrix_factorization" else {}))
    first_stage = cross_fit.fit(
        retriever,
        jax.random.key(seed),
        requests,
        folds=config["retriever"]["cross_fit"],
        progress=True,
    )
    candidates.build(
        writer,
        requests,
        first_stage.score,
        options,
        item_vectors=lists.item_vectors(requests, width=VECTOR_WIDTH, seed=seed),
        truth=movielens_simulator.truth(path, positive_rating=knobs["positive_rating"]),
        report={"ratings": core.report, "retriever": first_stage.report},
        progress=True,
    )


# Enough signs for inner products of item vectors to be told apart from noise.
VECTOR_WIDTH = 64

DATASETS: dict[str, Dataset] = {
    "movielens": Dataset(
        ("exposed_plus_retrieved", "exposed_plus_sampled", "retrieved_pool"), _movielens
    ),
    "recflow": Dataset(("logged",), _recflow),
}


def _source(knobs: dict[str, Any], cache: Path, simulate: Callable[..., None]) -> Path:
    """Return the folder to read: the user's own, or a simulation written once."""
    if knobs["path"]:
        path = Path(knobs["path"]).expanduser()
        if not path.exists():
            raise FileNotFoundError(
                f"config.data.path is {knobs['path']!r}, but there is no such file or folder: give "
                f"the folder of your {knobs['name']} download, or leave it empty to simulate"
            )
        return path
    recipe = {"simulate": dict(knobs["simulate"]), "code": store.code_signature(data_room)}
    folder = cache / "simulated" / f"{knobs['name']}-{store.fingerprint(recipe)}"
    if not folder.exists():
        _LOG.info("no config.data.path: simulating %s files in %s", knobs["name"], folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        simulate(folder, **knobs["simulate"])
    return folder
