"""Many devices give the numbers of one; `many_devices.py` runs where there are eight."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from dnr_jax.training import sharding
from dnr_jax.types import FeatureSpec

SCRIPT = Path(__file__).with_name("many_devices.py")
LAYOUTS = [
    "devices 8",
    "devices 4, seeds vmapped",
    "devices 8, streamed",
    "devices 8, tables sharded",
    "devices 8, tables sharded, lazy",
]
FLAGS = (
    "--xla_force_host_platform_device_count=8",
    # On a busy machine the threads of eight devices may come late to a meeting.
    "--xla_cpu_collective_call_terminate_timeout_seconds=600",
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=300",
)


@pytest.fixture(scope="module")
def found():
    flags = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(SCRIPT.parents[2])}
    run = subprocess.run(
        [sys.executable, SCRIPT],
        env=environment | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_training_gives_the_numbers_of_one_device(found, layout):
    """All losses, the first raw gradient norms of both players, and the parameters at the end.

    L_x is the exact density. Binned, its gradients are constant within a cell of the grid, and the
    rounding of a last bit takes a score across an edge: there its losses were up to 1e-4 apart.
    """
    assert 0 <= found[layout]["losses"] < 1e-5
    assert 0 <= found[layout]["first gradients"] < 1e-5
    assert 0 <= found[layout]["params"] < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scoring_gives_the_numbers_of_one_device(found, layout):
    assert 0 <= found[layout]["logits"] < 1e-6


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_epoch_is_compiled_once(found, layout):
    assert found[layout]["compiled"] == 1


def test_each_device_holds_its_rows_of_a_table_and_no_other(found):
    rows, *parts = found["table rows"]
    assert parts == [rows // 8]
    assert found["gathers of whole tables"] == []
    assert found["reductions"] > 0  # the text is that of a program that communicates at all


def test_a_checkpoint_of_eight_devices_goes_on_on_two(found):
    assert found["restored"] == {"distance": 0.0, "devices": 2}


def test_a_model_of_eight_devices_is_arrays_of_the_host(found):
    assert found["packed"] == {"distance": 0.0, "kinds": ["ndarray"]}


def test_one_device_changes_nothing():
    layout = sharding.make_layout(count=1, shard_tables=False)
    spec = FeatureSpec(("user",), (), ("item",), ("item",), {"user": 5, "item": 7})
    for function in (sharding.split_step, sharding.split_score):
        assert function(layout, test_one_device_changes_nothing) is test_one_device_changes_nothing
    assert sharding.rounded(spec, layout) == spec
    put = sharding.replicate(layout, {"a": np.arange(3)})["a"]
    assert not put.committed


def test_vocabularies_of_sharded_tables_do_not_depend_on_the_devices():
    layout = sharding.make_layout(count=1, shard_tables=True)
    spec = FeatureSpec(("user",), (), ("item",), ("item",), {"user": 1024, "item": 1025})
    assert sharding.rounded(spec, layout).sizes == {"user": 1024, "item": 2048}


def test_more_devices_than_there_are_is_refused():
    count = len(jax.devices()) + 1
    with pytest.raises(ValueError, match=rf"devices\.count is {count}, but there are {count - 1} "):
        sharding.make_layout(count=count, shard_tables=False)
