"""What a fresh clone relies on: README's two commands, the licence, the typed package."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def block(marker):
    """Return the code block right under a marker of the README."""
    found = re.search(rf"<!-- {marker} -->\n```\w*\n(.*?)\n```", README.read_text(), re.DOTALL)
    assert found, f"README.md has no command under <!-- {marker} -->"
    return found[1]


def test_the_readme_has_its_two_commands():
    run, tests = block("run"), block("tests")
    for command in (run, tests):
        assert "\n" not in command  # one line: it is extracted and typed as it is
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install")
    assert run.endswith(".venv/bin/python -m dnr_jax.main --config configs/recflow.py")
    assert "'.[test]'" in tests
    assert tests.endswith(".venv/bin/python -m pytest")


def test_ci_runs_the_readme_command_and_the_checks():
    script = (ROOT / ".ci" / "run").read_text()
    line = next(x for x in script.splitlines() if x.startswith("test_command="))
    shell = ["bash", "-c", f'{line}; printf %s "$test_command"']
    extracted = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert extracted == block("tests")
    for check in ("ruff check .", "ruff format --check .", "mypy"):
        assert f".venv/bin/{check} ||" in script


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_licence_is_apache_2(project):
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert project["project"]["license"] == "Apache-2.0"


def test_the_package_is_typed_and_whole(project):
    assert (ROOT / "dnr_jax" / "py.typed").exists()
    assert project["tool"]["setuptools"]["package-data"]["dnr_jax"] == ["py.typed"]
    folders = {p.parent for p in (ROOT / "dnr_jax").rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder into which a wheel of this tree is installed, without what it depends on."""
    work = tmp_path_factory.mktemp("wheel")
    kept = shutil.ignore_patterns(".*", "build", "*.egg-info", "runs", "__pycache__")
    tree = shutil.copytree(ROOT, work / "tree", ignore=kept)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", work, tree]
    for arguments in (build, ["install", "--no-deps", "--target", work / "site"]):
        wheels = work.glob("*.whl") if arguments[0] == "install" else ()
        made = subprocess.run([*pip, *arguments, *wheels], capture_output=True, text=True)
        assert made.returncode == 0, made.stderr
    return work / "site"


def test_the_wheel_holds_the_package_its_configs_and_its_program_and_nothing_else(installed):
    found = {p.name for p in installed.iterdir() if not p.name.endswith(".dist-info")}
    assert found == {"dnr_jax", "bin"}
    assert {p.name for p in (installed / "bin").iterdir()} == {"dnr-jax"}
    for folder, home in (("dnr_jax", installed), ("configs", installed / "dnr_jax")):
        files = {p.relative_to(ROOT / folder) for p in (ROOT / folder).rglob("*.py")}
        assert files <= {p.relative_to(home / folder) for p in (home / folder).rglob("*.py")}


def test_the_installed_wheel_runs_a_packaged_config_from_an_empty_folder(installed, tmp_path):
    table = ["--config.table=random,retriever", "--config.data.simulate.users=120"]
    command = [sys.executable, "-m", "dnr_jax.main", "--config", "recflow:smoke", *table]
    environment = os.environ | {"PYTHONPATH": str(installed)}
    ran = subprocess.run(
        [*command, f"--config.cache={tmp_path / 'cache'}"],
        **{"cwd": tmp_path, "env": environment, "capture_output": True, "text": True},
    )
    assert ran.returncode == 0, ran.stderr
    assert "retriever order" in ran.stdout
    assert (tmp_path / "runs" / "recflow-smoke-logged" / "results.json").exists()


def imported():
    """Name every top-level module that the package imports."""
    for path in (ROOT / "dnr_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                yield str(node.module).partition(".")[0]
            elif isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)


def test_the_version_has_one_source(project):
    assert project["project"]["dynamic"] == ["version"]
    attribute = project["tool"]["setuptools"]["dynamic"]["version"]["attr"]
    assert attribute == "dnr_jax.__version__"


def test_every_import_of_the_package_is_a_declared_dependency(project):
    extras = project["project"]["optional-dependencies"]
    optional = [d for name in extras.keys() - {"docs", "test"} for d in extras[name]]
    known = {re.split(r"[><=\[]", d)[0] for d in project["project"]["dependencies"] + optional}
    modules = {name.replace("-", "_") for name in known} | {"absl", "orbax", "yaml"}
    assert set(imported()) - set(sys.stdlib_module_names) - {"dnr_jax"} <= modules
