"""The commands in the documentation: their configs, rows and knobs exist."""

import re
import shlex
from pathlib import Path

import pytest

from dnr_jax import config_files
from dnr_jax.data import DATASETS
from dnr_jax.experiment import sections

ROOT = Path(__file__).parents[2]
FOLDERS = (ROOT, ROOT / "benchmarks", *(ROOT / "docs" / f for f in ("", "results", "tutorials")))
PAGES = [path for folder in FOLDERS for path in sorted(folder.glob("*.md"))]
WHOLE = [sections.defaults(name) for name in DATASETS]


def commands(page):
    """Return the arguments of every command of this program on a page."""
    found = re.findall(r"python -m dnr_jax\.main (--config .*)", page.read_text())
    return [shlex.split(line.strip("`"), comments=True) for line in found]


def exists(knob, config):
    for part in knob.split("."):
        if not isinstance(config, dict) or part not in config:
            return False
        config = config[part]
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_knob_that_a_page_names_exists(page):
    named = set(re.findall(r"--config\.([a-z_]+(?:\.[a-z_]+)*)", page.read_text()))
    assert not [knob for knob in named if not any(exists(knob, whole) for whole in WHOLE)]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda p: p.stem)
def test_every_config_and_row_of_a_command_exists(page):
    for _, name, *flags in commands(page):
        path = str(ROOT / name) if name.startswith("configs/") else name
        config = config_files.load(path)
        table = [flag.partition("=")[2] for flag in flags if flag.startswith("--config.table=")]
        rows = [row for value in table for row in value.split(",")]
        assert set(rows) <= set(config["rows"]), page
