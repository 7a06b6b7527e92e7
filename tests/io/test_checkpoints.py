import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import logging as absl_logging

import dnr_jax
from dnr_jax.io import checkpoints, orbax_files

ROOT = Path(dnr_jax.__file__).parents[1]


def make_state(value=1.0):
    params = {"reranker": {"w": jnp.full((3, 4), float(value))}, "generator": {}}
    return {
        "params": params,
        "opt": optax.adam(1e-3).init(params),
        "key": jax.random.split(jax.random.key(int(value)), 2),
        "half": jnp.full(3, value, jnp.bfloat16),
        "order": np.arange(5, dtype=np.int64),
        "flag": np.bool_(True),
        "empty": jnp.zeros((0, 2)),
    }


def assert_same(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert type(a) is type(b)
        assert a.dtype == b.dtype
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def data_files(version):
    """Array files of a version, largest first."""
    files = [p for p in (version / checkpoints.ARRAYS).rglob("*") if p.is_file()]
    return sorted(files, key=lambda p: -p.stat().st_size)


@pytest.fixture
def two_saves(tmp_path):
    for epoch in (1, 2):
        checkpoints.save(tmp_path, "last", make_state(epoch), {"epoch": epoch})
    return tmp_path


def version(folder, number):
    return folder / "last" / f"{number:08d}"


def test_round_trip_is_exact(tmp_path):
    metadata = {"epoch": 3, "best": float("-inf"), "value": 0.1, "names": ["a"]}
    checkpoints.save(tmp_path, "best", make_state(7.0), metadata)
    state, found = checkpoints.restore(tmp_path, "best", make_state(0.0))
    assert_same(state, make_state(7.0))
    assert found == metadata


def test_a_part_is_read_without_knowing_the_rest(two_saves):
    """The rest holds a typed key, half precision and an array without elements."""
    wanted = jax.tree.map(np.asarray, make_state(2)["params"])
    found, metadata = checkpoints.restore_part(two_saves, "last", "['params']", wanted)
    assert_same(found, wanted)
    assert metadata == {"epoch": 2}
    other = {"reranker": {"w": np.zeros(4, np.float32)}, "generator": {}}
    with pytest.raises(ValueError, match=r"saved float32\[3, 4\], wanted float32\[4\]"):
        checkpoints.restore_part(two_saves, "last", "['params']", other)
    assert checkpoints.restore_part(two_saves, "other", "['params']", wanted) is None


def test_absent_is_none(tmp_path):
    assert checkpoints.restore(tmp_path / "no" / "where", "last", make_state()) is None


def test_abstract_template_with_sharding(tmp_path):
    state = {"w": jnp.arange(4.0), "key": jax.random.key(3, impl="rbg")}
    checkpoints.save(tmp_path, "last", state, {})
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    template = jax.eval_shape(lambda: state)
    template["w"] = jax.ShapeDtypeStruct((4,), jnp.float32, sharding=device)
    found, _ = checkpoints.restore(tmp_path, "last", template)
    assert_same(found, state)
    assert found["w"].sharding == device


def test_relative_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoints.save(Path("here"), "last", make_state(), {})
    assert checkpoints.restore(tmp_path / "here", "last", make_state()) is not None


def test_the_two_newest_versions_are_kept(two_saves):
    checkpoints.save(two_saves, "last", make_state(3), {"epoch": 3})
    assert sorted(p.name for p in (two_saves / "last").iterdir()) == ["00000002", "00000003"]
    assert checkpoints.restore(two_saves, "last", make_state())[1] == {"epoch": 3}


def test_names_do_not_mix(two_saves):
    checkpoints.save(two_saves, "best", make_state(9), {"epoch": 9})
    assert checkpoints.restore(two_saves, "last", make_state())[1] == {"epoch": 2}
    assert checkpoints.restore(two_saves, "best", make_state())[1] == {"epoch": 9}


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut_in_half(path):
    os.truncate(path, path.stat().st_size // 2)


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


DAMAGES = [flip_a_bit, cut_in_half, os.remove, replace_by_folder, zero]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("place", ["data", "seal"])
def test_torn_version_falls_back(two_saves, damage, place, caplog):
    bad = version(two_saves, 2)
    damage(bad / checkpoints.SEAL if place == "seal" else data_files(bad)[0])
    state, metadata = checkpoints.restore(two_saves, "last", make_state())
    assert metadata == {"epoch": 1}
    assert_same(state, make_state(1))
    assert "torn" in caplog.text
    # The torn one is out of the way: going on keeps two sound versions.
    checkpoints.save(two_saves, "last", make_state(5), {"epoch": 5})
    os.remove(version(two_saves, 2) / checkpoints.SEAL)
    assert checkpoints.restore(two_saves, "last", make_state())[1] == {"epoch": 1}


@pytest.mark.parametrize(
    "content", ["{}", "[]", "null", '{"content": 3, "sha256": 4}', '{"content": "{}"}']
)
def test_a_seal_of_another_form_falls_back(two_saves, content):
    (version(two_saves, 2) / checkpoints.SEAL).write_text(content)
    assert checkpoints.restore(two_saves, "last", make_state())[1] == {"epoch": 1}


def test_a_version_that_is_a_file_falls_back(two_saves):
    shutil.rmtree(version(two_saves, 2))
    version(two_saves, 2).write_bytes(b"")
    assert checkpoints.restore(two_saves, "last", make_state())[1] == {"epoch": 1}
    checkpoints.save(two_saves, "last", make_state(3), {"epoch": 3})
    checkpoints.save(two_saves, "last", make_state(4), {"epoch": 4})
    assert sorted(p.name for p in (two_saves / "last").glob("0*")) == ["00000002", "00000003"]


def test_what_lies_at_the_temporary_name_is_not_written_through(two_saves, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "thesis.tex").write_text("precious")
    (two_saves / "last" / ".tmp-00000003").symlink_to(own)
    checkpoints.save(two_saves, "last", make_state(3), {"epoch": 3})
    assert [p.name for p in own.iterdir()] == ["thesis.tex"]
    assert checkpoints.restore(two_saves, "last", make_state())[1] == {"epoch": 3}


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from dnr_jax.io import checkpoints
free = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for epoch, limit in enumerate((free, 0, 200, 30_000)):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, free))
    try:
        state = {name: np.random.rand(300, 300) for name in "abcdef"}
        checkpoints.save(Path(sys.argv[1]), "last", state, {"epoch": epoch})
    except OSError as error:
        print(error)
"""


def test_a_full_disk_is_a_system_error_and_leaves_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert re.fullmatch(r"(\[Errno 27\] File too large: '.*/last/.*'\n){3}", done.stdout)
    assert done.stderr == ""
    assert [p.name for p in (tmp_path / "last").iterdir()] == ["00000001"]
    template = {name: np.zeros((300, 300)) for name in "abcdef"}
    assert checkpoints.restore(tmp_path, "last", template)[1] == {"epoch": 0}


def test_writers_that_report_after_an_error_print_nothing(tmp_path, monkeypatch, caplog):
    printed = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: printed.append(lost.exc_type))
    monkeypatch.setattr(orbax_files.ocp, "Checkpointer", full_disk)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(tmp_path, "last", make_state(1), {})
    for error in (RuntimeError("Event loop is closed"), KeyError("else")):  # as a thread does
        sys.unraisablehook(SimpleNamespace(exc_type=type(error), exc_value=error))
    assert printed == [KeyError]
    asyncio = logging.getLogger("asyncio")
    asyncio.error("Task exception was never retrieved\nfuture: ...")
    asyncio.error("something else")
    assert [record.message for record in caplog.records] == ["something else"]


def full_disk(handler):
    raise OSError(28, "No space left on device")


def test_every_file_is_sealed(two_saves):
    for path in data_files(version(two_saves, 2)):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(checkpoints._TornError, match="changed"):
            checkpoints._open_seal(version(two_saves, 2))
        path.write_bytes(content)
    checkpoints._open_seal(version(two_saves, 2))


def test_all_versions_torn_names_folder_and_cure(two_saves):
    for number in (1, 2):
        flip_a_bit(data_files(version(two_saves, number))[0])
    for _ in range(2):  # a second try must not take the folder for an empty one
        with pytest.raises(ValueError, match=r"torn.*delete .* to train") as error:
            checkpoints.restore(two_saves, "last", make_state())
        assert str(two_saves) in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["params"]["reranker"].update(b=jnp.zeros(2)), r"\['b'\]: wanted, not saved"),
        (lambda s: s.pop("half"), r"\['half'\]: saved, not wanted"),
        (
            lambda s: s.update(half=jnp.ones(4, jnp.bfloat16)),
            r"saved bfloat16\[3\], wanted .*\[4\]",
        ),
        (lambda s: s.update(half=jnp.ones(3)), "wanted float32"),
        (lambda s: s.update(key=jax.random.split(jax.random.key(0, impl="rbg"))), "rbg"),
    ],
)
def test_another_structure_is_refused(two_saves, change, message):
    template = make_state()
    change(template)
    with pytest.raises(ValueError, match=message):
        checkpoints.restore(two_saves, "last", template)


@pytest.mark.parametrize(
    ("name", "state", "message"),
    [
        ("last", {"a": 3}, "is a int"),
        ("last", {"a": jnp.zeros((0,))}, "no array"),
        ("../last", {"a": jnp.zeros(1)}, "plain file name"),
        (".tmp", {"a": jnp.zeros(1)}, "plain file name"),
    ],
)
def test_bad_input(tmp_path, name, state, message):
    with pytest.raises(ValueError, match=message):
        checkpoints.save(tmp_path, name, state, {})


def test_no_log_noise_and_others_still_heard(tmp_path, caplog):
    before = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.INFO)
    try:
        with caplog.at_level(logging.INFO, logger="absl"):
            checkpoints.save(tmp_path, "last", make_state(), {})
            checkpoints.restore(tmp_path, "last", make_state())
            assert not caplog.records
            absl_logging.info("still heard")
            assert len(caplog.records) == 1
    finally:
        absl_logging.set_verbosity(before)


WRITER = """
import sys
from pathlib import Path
import numpy as np
from dnr_jax.io import checkpoints
for epoch in range(1, 10_000):
    state = {"a": np.full((200, 100), epoch), "b": np.full(3, epoch)}
    checkpoints.save(Path(sys.argv[1]), "last", state, {"epoch": epoch})
    print("saved", epoch, flush=True)
"""


@pytest.mark.parametrize("delay_seconds", [0.01, 0.03, 0.05])
def test_kill_9_leaves_the_newest_finished_save(tmp_path, delay_seconds):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    for _ in range(2):
        process.stdout.readline()
    time.sleep(delay_seconds)
    process.send_signal(signal.SIGKILL)
    announced = [int(n) for n in re.findall(r"saved (\d+)\n", process.stdout.read())] or [2]
    process.wait()
    process.stdout.close()
    template = {"a": np.zeros((200, 100), np.int64), "b": np.zeros(3, np.int64)}
    state, metadata = checkpoints.restore(tmp_path, "last", template)
    assert metadata["epoch"] in (announced[-1], announced[-1] + 1)
    assert np.all(state["a"] == metadata["epoch"])
    assert np.all(state["b"] == metadata["epoch"])
    checkpoints.save(tmp_path, "last", state, {"epoch": -1})
    assert not list((tmp_path / "last").glob(".tmp-*"))
    assert checkpoints.restore(tmp_path, "last", template)[1] == {"epoch": -1}


def test_death_before_the_rename_keeps_the_previous(two_saves, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.durable, "publish", die)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(two_saves, "last", make_state(3), {"epoch": 3})
    assert checkpoints.restore(two_saves, "last", make_state())[1] == {"epoch": 2}
    checkpoints.save(two_saves, "last", make_state(4), {"epoch": 4})
    assert checkpoints.restore(two_saves, "last", make_state())[1] == {"epoch": 4}
