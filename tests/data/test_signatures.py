"""Signatures follow content: of files, and of the code that a data set really uses."""

import shutil
from pathlib import Path

import pytest

from dnr_jax.data import DATASETS, InteractionData, signatures
from dnr_jax.experiment import first_stage
from dnr_jax.retrievers.matrix_factorization import matrix_factorization

DATA = ("store", "array_files", "signatures", "settings")
EVERY = {"types.py", "settings.py", *(f"data/{name}.py" for name in DATA)}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package that a test may edit."""
    copy = tmp_path / "dnr_jax"
    shutil.copytree(signatures.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(signatures, "PACKAGE", copy)
    return copy


def names(*modules):
    return {str(p.relative_to(signatures.PACKAGE)) for p in signatures.sources(*modules)}


def signed():
    modules = {name: dataset.modules for name, dataset in DATASETS.items()}
    for name, dataset in DATASETS.items():
        if isinstance(dataset, InteractionData):
            modules[name] += (first_stage.__name__, matrix_factorization.__module__)
    return {name: signatures.code_signature(*roots) for name, roots in modules.items()}


def test_files_are_signed_by_content(tmp_path, monkeypatch):
    path = tmp_path / "u.data"
    path.write_text("1\t2\t3\t4\n")
    before = signatures.file_signature(path)
    path.write_text("1\t2\t3\t5\n")
    assert signatures.file_signature(path) != before
    monkeypatch.setattr(signatures, "WHOLE_FILE_BYTES", 4)
    path.write_bytes(bytes(3 * 2**20))
    assert signatures.file_signature(path)[:2] == ["u.data", 3 * 2**20]


def test_a_data_set_is_signed_with_its_own_room_and_what_that_imports():
    made = (first_stage.__name__, matrix_factorization.__module__)
    movielens = names(*DATASETS["movielens"].modules, *made)
    recflow = names(*DATASETS["recflow"].modules)
    assert movielens >= EVERY | {"ops.py", "data/lists.py", "data/movielens/reader.py"}
    assert movielens >= {"retrievers/matrix_factorization.py", "retrievers/cross_fit.py"}
    assert recflow >= EVERY | {f"data/recflow/{n}.py" for n in ("files", "rows", "fit", "arrays")}
    assert not [name for name in movielens if "recflow" in name or "simulator" in name]
    assert not movielens & {"retrievers/popularity.py", "retrievers/sequential.py"}
    assert not [name for name in recflow if "movielens" in name or "simulator" in name]
    assert "data/__init__.py" not in movielens | recflow


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("data/recflow/rows.py", {"recflow"}),
        ("data/movielens/reader.py", {"movielens"}),
        ("data/interaction_files/reader.py", {"interactions"}),
        ("ops.py", {"interactions", "kuairand", "movielens", "table"}),
        ("retrievers/cross_fit.py", {"interactions", "kuairand", "movielens"}),
        ("retrievers/popularity.py", set()),
        ("data/store.py", set(DATASETS)),
        ("types.py", set(DATASETS)),
        ("data/table/reader.py", {"table"}),
        ("data/recflow/simulator/world.py", set()),
        ("nn/attention.py", set()),
    ],
)
def test_editing_a_file_changes_the_signatures_of_who_uses_it(package, file, changed):
    before = signed()
    path = package / file
    path.write_bytes(path.read_bytes() + b"\n# edited\n")
    after = signed()
    assert {name for name in DATASETS if before[name] != after[name]} == changed


def test_imports_inside_functions_and_of_packages_count(package):
    (package / "one.py").write_text("def f():\n    from dnr_jax.two import inner\n")
    (package / "two").mkdir()
    (package / "two" / "__init__.py").write_text("import dnr_jax.three\n")
    (package / "two" / "inner.py").write_text("")
    (package / "three.py").write_text("import numpy\nfrom dnr_jax.two import outer\n")
    assert names("dnr_jax.one") == {"one.py", "two/inner.py"}
    assert names("dnr_jax.three") == {"three.py", "two/__init__.py"}
    with pytest.raises(ValueError, match="numpy is not a module of"):
        signatures.sources("numpy")
    assert Path(signatures.__file__).parents[1] != package
