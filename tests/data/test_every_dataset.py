"""What every data set of the table must hold: simulated, read back and prepared, it has no leak."""

import numpy as np
import pytest

from dnr_jax.data import DATASETS, CandidateSettings, InteractionData
from dnr_jax.evaluation import audit
from dnr_jax.experiment.datasets import DataPlan, prepare
from dnr_jax.retrievers import RetrieverSettings
from dnr_jax.settings import read

# A simulation of each data set that is made and read in a second or two.
SIMULATIONS = {
    "interactions": {"users": 60, "catalogue": 90},
    "kuairand": {"users": 60, "videos": 120},
    "movielens": {"users": 60, "movies": 90},
    # As many are shown as are dropped: with more noise the shown would have the lower scores.
    "recflow": {"users": 60, "videos": 700, "days": 3, "noise": 1.0},
    "table": {"requests": 300, "users": 30},
}
K = 6


def plan(name, cache):
    dataset = DATASETS[name]
    return DataPlan(
        name=name,
        settings=read(dataset.settings, {"history": 8, "simulate": SIMULATIONS[name]}, name),
        candidates=CandidateSettings(name=dataset.protocols[-1], size=20),
        retriever="popularity",
        retriever_settings=RetrieverSettings(),
        k=K,
        seed=0,
        cache=cache,
    )


def test_every_data_set_is_tried():
    assert set(SIMULATIONS) == set(DATASETS)


@pytest.fixture(params=SIMULATIONS, scope="module")
def named(request, tmp_path_factory):
    cache = tmp_path_factory.mktemp(request.param)
    return request.param, cache, prepare(plan(request.param, cache))


def test_it_is_read_without_a_leak(named):
    name, _, prepared = named
    found = audit(prepared, k=K, protocol=DATASETS[name].protocols[-1])
    assert found["level"] != "LEAK", found["findings"]
    for split in prepared.splits.values():
        assert len(split.request_id) > 10
        assert np.asarray(split.batch.labels).max() == 1


def test_it_is_prepared_once(named):
    name, cache, prepared = named
    files = sorted(cache.rglob("*"))
    assert prepare(plan(name, cache)).fingerprint == prepared.fingerprint
    assert sorted(cache.rglob("*")) == files


@pytest.mark.parametrize("name", [n for n in DATASETS if isinstance(DATASETS[n], InteractionData)])
def test_interactions_are_sorted_and_no_pair_comes_twice(name, tmp_path):
    dataset, settings = DATASETS[name], plan(name, tmp_path).settings
    dataset.simulate(tmp_path / "files", settings.simulate)
    assert all(file.is_file() for file in dataset.inputs(tmp_path / "files", settings))
    events = dataset.read(tmp_path / "files", settings)
    assert len(set(zip(events.user, events.item, strict=True))) == len(events.user)
    np.testing.assert_array_equal(np.lexsort((events.time, events.user)), range(len(events.user)))
    assert set(events.label) <= {0, 1}
