import sys
from types import SimpleNamespace

import pytest

from dnr_jax import json_files
from dnr_jax.io import environment


def test_environment_is_complete_json():
    about = environment.describe()
    assert json_files.plain(about) == about
    assert about["packages"]["jax"]
    assert about["devices"]
    assert about["command"].endswith(sys.argv[-1])


@pytest.mark.parametrize(
    ("module", "program", "typed"),
    [
        ("dnr_jax.main", "/x/dnr_jax/main.py", "python -m dnr_jax.main --seed 'a b'"),
        (None, "try.py", "python try.py --seed 'a b'"),
        (None, "/venv/bin/dnr-jax", "dnr-jax --seed 'a b'"),
    ],
)
def test_the_command_is_what_one_types(monkeypatch, module, program, typed):
    spec = None if module is None else SimpleNamespace(name=module)
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=spec))
    monkeypatch.setattr(sys, "argv", [program, "--seed", "a b"])
    assert environment.command_line() == typed


def test_environment_outside_a_clone(monkeypatch, tmp_path):
    monkeypatch.setattr(environment.dnr_jax, "__file__", str(tmp_path / "dnr_jax" / "__init__.py"))
    assert environment._commit() is None
