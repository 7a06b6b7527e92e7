from dnr_jax import json_files
from dnr_jax.io import environment


def test_environment_is_complete_json():
    about = environment.describe()
    assert json_files.plain(about) == about
    assert about["packages"]["jax"]
    assert about["devices"]
    assert about["command"].startswith("python")


def test_environment_outside_a_clone(monkeypatch, tmp_path):
    monkeypatch.setattr(environment.dnr_jax, "__file__", str(tmp_path / "dnr_jax" / "__init__.py"))
    assert environment._commit() is None
