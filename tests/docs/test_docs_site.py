"""The documentation: it builds without a warning, its links lead somewhere."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import dnr_jax

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
AT_THE_ROOT = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PAGES = [*AT_THE_ROOT, *(p for p in DOCS.rglob("*.md") if "_build" not in p.parts)]
TOOLS = ("sphinx", "myst_parser", "furo", "sphinx_copybutton")
# Words that a native reader stops at.
UNIDIOMATIC = re.compile(r"told apart|\bstands? (in|beside|below|above|alone)\b|some [\d,]+ ")


@pytest.mark.skipif(
    not all(map(find_spec, TOOLS)),
    reason="the site needs the extra `docs`: pip install -e '.[docs]'",
)
def test_the_site_builds_without_a_warning(tmp_path):
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    command = [*build, "-d", str(tmp_path / "doctrees"), str(DOCS), str(tmp_path / "html")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "html" / "api" / "rerankers.html").read_text()
    assert 'id="dnr_jax.rerankers.prm.prm"' in reference  # docstrings were read
    models = (tmp_path / "html" / "models.html").read_text()
    assert all(f'id="{name}"' in models for name in ("prm", "sasrec", "dcdr-style"))


@pytest.mark.parametrize("page", AT_THE_ROOT, ids=lambda p: p.name)
def test_links_of_the_pages_at_the_root_lead_to_files(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_the_readme_is_short_and_reaches_every_page_that_is_not_an_index():
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= 150
    folders = [DOCS, DOCS / "tutorials", DOCS / "how_to", DOCS / "results"]
    pages = {p.relative_to(ROOT) for folder in folders for p in folder.glob("*.md")}
    included = {
        Path("docs", f"{n}.md") for n in ("index", "changelog", "contributing", "benchmarks")
    }
    inner = {Path("docs/results/index.md"), Path("docs/results/beyond_accuracy.md")}
    missing = [str(page) for page in pages - included - inner if f"({page})" not in text]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_page_has_phrases_that_are_not_english(page):
    found = UNIDIOMATIC.search(page.read_text())
    assert not found, found and found[0]


def test_the_version_is_the_same_everywhere():
    version = dnr_jax.__version__
    assert re.search(rf"^version: {re.escape(version)}$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert version in (ROOT / "CHANGELOG.md").read_text()
