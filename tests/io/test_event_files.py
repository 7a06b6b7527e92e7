"""TensorBoard's event files: every record once, whatever a run went through."""

import importlib.util
import struct

import pytest
from tensorboard_files import curves, events

from dnr_jax import experiment
from dnr_jax.io import event_files, run_folder


def record(epoch, loss, **more):
    return {"row": "dnr_b", "label": "DNR-B", "seed": 1, "epoch": epoch, "direct": loss, **more}


def test_records_become_a_curve_for_each_training(tmp_path):
    with run_folder.open_run(tmp_path, {}, tensorboard=True) as run:
        run.append_metrics(record(1, 0.5), record(1, 0.75, learning_rate_factor=3.0))
        run.append_metrics(record(2, 0.25, stage="pretrain"))
        seen = curves(tmp_path / "tensorboard")  # while the run goes on
    assert seen == [
        ("dnr_b/seed-1", "direct", 1, 0.5),
        ("dnr_b/seed-1", "pretrain/direct", 2, 0.25),
        ("dnr_b/seed-1-rate-3", "direct", 1, 0.75),
    ]
    [path] = (tmp_path / "tensorboard" / "dnr_b" / "seed-1").iterdir()
    first = next(iter(events(path)))
    assert first.file_version == "brain.Event:2"


def test_checksums_are_those_of_the_format(tmp_path):
    with run_folder.open_run(tmp_path, {}, tensorboard=True) as run:
        run.append_metrics(record(1, 0.5))
    [path] = (tmp_path / "tensorboard").rglob("events*")
    content = path.read_bytes()
    [size, of_size] = struct.unpack_from("<QI", content)
    assert of_size == masked(content[:8])
    assert struct.unpack_from("<I", content, 12 + size)[0] == masked(content[12 : 12 + size])


def masked(content):
    """CRC-32C bit by bit, rotated and shifted as the format wants."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 & -(crc & 1))
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def test_a_run_that_is_opened_again_doubles_nothing(tmp_path):
    with run_folder.open_run(tmp_path, {}) as run:  # at first without the flag
        run.append_metrics(record(1, 0.5), record(2, 0.25))
    for _ in range(2):
        with run_folder.open_run(tmp_path, {}, tensorboard=True) as run:
            run.rewind_metrics("dnr_b", 1)
            run.append_metrics(record(2, 0.125))
        found = curves(tmp_path / "tensorboard")
        assert [point[2:] for point in found] == [(1, 0.5), (2, 0.125)]


def test_without_the_package_nothing_is_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(event_files, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the package tensorboardX: pip install 'dnr_jax\["):
        experiment.run_all({}, tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()
    assert importlib.util.find_spec("tensorboardX")  # in the extra `test`
