"""A config is a file or a packaged name; whatever is wrong with it is one line."""

import sys
from pathlib import Path

import pytest

from dnr_jax import config_files

ROOT = Path(__file__).parents[1]
GOOD = "from ml_collections import ConfigDict\ndef get_config(preset=''):\n"


@pytest.fixture
def write(tmp_path):
    def make(text, name="mine.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return str(path)

    return make


def test_a_bare_name_is_the_packaged_config():
    file = str(ROOT / "configs" / "recflow.py")
    assert config_files.load("recflow:smoke") == config_files.load(f"{file}:smoke")
    assert config_files.load("recflow") == config_files.load("recflow:")
    assert config_files.load("recflow")["data"]["name"] == "recflow"
    known = ["amazon_books", "interactions", "kuairand", "movielens", "recflow", "table"]
    assert config_files.packaged() == known


def test_a_config_elsewhere_may_build_on_the_packaged_ones(write):
    text = GOOD + "    from configs import recflow\n    config = recflow.get_config(preset)\n"
    path = write(text + "    config.seed = 3\n    return config\n")
    assert config_files.load(f"{path}:smoke") == config_files.load("recflow:smoke") | {"seed": 3}


def test_a_folder_named_configs_has_its_own_neighbours(write):
    write("SEED = 5", "configs/common.py")
    text = "from configs import common\n" + GOOD + "    return ConfigDict({'seed': common.SEED})\n"
    before = sys.modules.get("configs.common")
    assert config_files.load(write(text, "configs/mine.py")) == {"seed": 5}
    assert sys.modules.get("configs.common") is before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:", r"config file mine.py, line 1: SyntaxError: "),
        ("x = 1\nbroken", r"config file mine.py, line 2: NameError: name 'broken' is not defined"),
        ("import nothing_like_it", r"mine.py, line 1: ModuleNotFoundError"),
        ("raise SystemExit(3)", r"mine.py, line 1: SystemExit: 3"),
        (GOOD + "    return {}['a']", r"mine.py, line 3: KeyError: 'a'"),
        (GOOD + "    raise ValueError('no\\nsuch')", r"mine.py, line 3: ValueError: no such$"),
        (GOOD + "    return 3", r"get_config returned 3: it must return a ConfigDict"),
        ("config = 3", r"has no function get_config: it is not a config of this program"),
        ("def get_config():\n    return 3", r"mine.py: TypeError: .*argument"),
        ("\0", r"mine.py.*"),
    ],
)
def test_a_broken_file_is_one_line_with_its_place(write, text, message):
    with pytest.raises(ValueError, match=message) as error:
        config_files.load(write(text) + ":preset")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "nothing.py",
            "there is no config file 'nothing.py'; packaged configs: amazon_books, interactions",
        ),
        ("configs/", "there is no packaged config 'configs/'|there is no config file"),
        ("recfow:smoke", "there is no packaged config 'recfow'; did you mean 'recflow'?"),
        ("common", "there is no packaged config 'common'"),
        ("recflow:smoky", "recflow.py, line .* no preset 'smoky': choose one of none, smoke"),
    ],
)
def test_a_config_that_is_not_there_names_those_that_are(name, message):
    with pytest.raises(ValueError, match=message):
        config_files.load(name)
