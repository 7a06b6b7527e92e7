"""From raw files to requests: data sets, candidate sets, and the store of prepared arrays."""

from __future__ import annotations

from dnr_jax.data import interaction_files, kuairand, movielens, recflow, table
from dnr_jax.data.dataset import InteractionData, LoggedData
from dnr_jax.data.interaction_files import simulator as interactions_simulator
from dnr_jax.data.interaction_files.settings import InteractionSettings
from dnr_jax.data.kuairand import simulator as kuairand_simulator
from dnr_jax.data.kuairand.settings import KuaiRandSettings
from dnr_jax.data.movielens import simulator as movielens_simulator
from dnr_jax.data.movielens.settings import MovieLensSettings
from dnr_jax.data.movielens.truth import truth as movielens_truth
from dnr_jax.data.protocols import CANDIDATES, RANDOM_EXPOSURE, CandidateSettings
from dnr_jax.data.recflow import estimate as recflow_estimate
from dnr_jax.data.recflow import requests as recflow_requests
from dnr_jax.data.recflow import simulator as recflow_simulator
from dnr_jax.data.recflow.settings import RecFlowSettings
from dnr_jax.data.settings import DataSettings
from dnr_jax.data.table import requests as table_requests
from dnr_jax.data.table import simulator as table_simulator
from dnr_jax.data.table.settings import TableSettings

__all__ = ["DATASETS", "CandidateSettings", "DataSettings", "InteractionData", "LoggedData"]

DATASETS: dict[str, InteractionData | LoggedData] = {
    "interactions": InteractionData(
        InteractionSettings,
        interaction_files.inputs,
        interaction_files.read,
        interaction_files.truth,
        interactions_simulator.simulate,
    ),
    "kuairand": InteractionData(
        KuaiRandSettings,
        kuairand.inputs,
        kuairand.read,
        kuairand.truth,
        kuairand_simulator.simulate,
        protocols=(RANDOM_EXPOSURE, *CANDIDATES),
    ),
    "movielens": InteractionData(
        MovieLensSettings,
        movielens.inputs,
        movielens.read,
        movielens_truth,
        movielens_simulator.simulate,
    ),
    "recflow": LoggedData(
        RecFlowSettings,
        recflow.inputs,
        recflow.check,
        recflow.build,
        recflow_simulator.simulate,
        recflow_requests.encode,
        estimate=recflow_estimate.estimate,
    ),
    "table": LoggedData(
        TableSettings,
        table.inputs,
        table.check,
        table.build,
        table_simulator.simulate,
        table_requests.encode,
        direct=True,
    ),
}
