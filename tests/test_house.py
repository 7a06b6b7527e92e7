"""The architecture, held by tests: imports go down, tables are complete, configs are plain."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dnr_jax"
LEVELS = [
    {"types", "ops", "settings", "durable", "json_files"},
    {"nn", "data", "divergences", "metrics", "io"},
    {"retrievers", "rerankers", "noise", "objectives"},
    {"training", "evaluation"},
    {"experiment", "reports", "serving"},
    {"main"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
# The ground floor has inner steps: ops speaks of types, JSON files are written durably.
INNER = {("ops", "types"), ("json_files", "durable")}
FOREIGN = {"torch", "tensorflow", "pandas", "sklearn", "keras", "rax", "ranx"}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path):
    """Yield (top package, room or None) of every import of a file, inner ones included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            base = node.module or ""
            names = [f"{base}.{alias.name}" if base == "dnr_jax" else base for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            inside = parts[0] == "dnr_jax" and len(parts) > 1
            yield parts[0], parts[1] if inside and parts[1] in LEVEL else None


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    here = room(path)
    for top, there in imported(path):
        assert top not in FOREIGN, f"{path} imports {top}"
        assert top not in {"tests", "configs", "benchmarks"}, f"{path} imports {top}"
        if there is None or there == here or (here, there) in INNER:
            continue
        assert here in LEVEL, f"{path} is in no room of the house"
        assert LEVEL[there] < LEVEL[here], f"{path} ({here}) imports {there}"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda p: p.name)
def test_configs_import_nothing_of_the_package(path):
    assert {top for top, _ in imported(path)} <= {"ml_collections", "configs"}


def test_no_room_is_named_utils_and_no_file_lacks_a_docstring():
    for path in FILES:
        assert "utils" not in path.stem
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def test_the_middle_of_data_knows_no_data_set():
    from dnr_jax.data import DATASETS

    for path in (PACKAGE / "data").glob("*.py"):
        if path.stem != "__init__":  # the table of all data sets
            text = path.read_text().lower()
            assert not [name for name in DATASETS if name in text], path


def test_every_file_of_a_model_room_is_in_its_table():
    from dnr_jax.rerankers import RERANKERS
    from dnr_jax.retrievers import RETRIEVERS

    retrievers = [entry.build for entry in RETRIEVERS.values()]
    for folder, makers in (("rerankers", RERANKERS.values()), ("retrievers", retrievers)):
        homes = {Path(make.__code__.co_filename).stem for make in makers}
        shared = {"__init__", "retriever", "cross_fit", "quality"}
        files = {path.stem for path in (PACKAGE / folder).glob("*.py")} - shared
        assert files == homes
