"""The architecture, held by tests: imports go down, tables are complete, configs are plain."""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dnr_jax"
LEVELS = [
    {
        *("types", "ops", "settings", "config_files", "ahead"),
        *("durable", "json_files", "sealed", "named_arrays"),
    },
    {"nn", "data", "divergences", "metrics", "io"},
    {"retrievers", "rerankers", "noise", "objectives"},
    {"training", "evaluation"},
    {"experiment", "reports", "serving", "console"},
    {"main", "cli"},
    {"__init__"},  # the public face may show any room
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
# The ground floor has inner steps: ops speaks of types, JSON files are written durably.
INNER = {
    ("ops", "types"),
    ("json_files", "durable"),
    ("sealed", "json_files"),
    ("named_arrays", "types"),
    ("config_files", "settings"),
}
FOREIGN = {"torch", "tensorflow", "pandas", "sklearn", "keras", "rax", "ranx"}
FILES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted(path.parent for path in PACKAGE.glob("rerankers/*/__init__.py"))


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
    known = {"ml_collections", "configs", *sys.stdlib_module_names}
    assert {top for top, _ in imported(path)} <= known


def test_no_room_is_named_utils_and_no_file_lacks_a_docstring():
    for path in FILES:
        assert "utils" not in path.stem
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def test_the_middle_of_data_knows_no_data_set():
    from dnr_jax.data import DATASETS

    for path in (PACKAGE / "data").glob("*.py"):
        if path.stem != "__init__":  # the table of all data sets
            text = path.read_text().lower()
            # These are words of English too: as data sets they are imported, or stand in quotes.
            forms = {
                "table": ('"table"', "data.table", "data import table"),
                "interactions": ('"interactions"', "interaction_files"),
            }
            named = [n for n in DATASETS if any(form in text for form in forms.get(n, (n,)))]
            assert not named, path


@cache
def read_by(path):
    """Return the files of the package that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    places = [ROOT / name.replace(".", "/") for name in names]
    return {f for p in places for f in (p.with_suffix(".py"), p / "__init__.py") if f in FILES}


def home(path):
    """Name the file or folder of a room to which a file belongs: a paper, in `rerankers`."""
    return path.relative_to(PACKAGE).with_suffix("").parts[1]


def test_every_file_of_a_model_room_is_in_its_table():
    from dnr_jax.rerankers import RERANKERS
    from dnr_jax.retrievers import RETRIEVERS

    tables = {"rerankers": RERANKERS, "retrievers": RETRIEVERS}
    for folder, table in tables.items():
        homes = {home(Path(entry.build.__code__.co_filename)) for entry in table.values()}
        shared = {
            "__init__",
            "retriever",
            "cross_fit",
            "quality",
            "kept",
            "epochs",
            "descent",
            "tables",
            "joint",
            "liked",
        }
        assert {home(path) for path in FILES if room(path) == folder} - shared == homes


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_paper_reads_every_file_of_its_folder(folder):
    files, read, new = set(folder.glob("*.py")), set(), {folder / "__init__.py"}
    while new:
        read |= new
        new = {target for path in new for target in read_by(path) & files} - read
    assert read == files


def readers(shared):
    """Return who reads a file of `nn`, itself or by other files of `nn`: papers and other rooms."""
    found = set()
    for path in FILES:
        if shared in read_by(path):
            paper = f"rerankers/{home(path)}" if room(path) == "rerankers" else room(path)
            found |= readers(path) if room(path) == "nn" else {paper}
    return found - {"rerankers/__init__"}


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("nn/[!_]*.py")), ids=lambda p: p.stem)
def test_nn_holds_what_two_papers_or_another_room_read(path):
    found = readers(path)
    assert len(found) >= 2 or not any(name.startswith("rerankers/") for name in found), found
    assert found
