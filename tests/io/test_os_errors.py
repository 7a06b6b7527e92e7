"""Errors of the operating system, as a user reads them."""

import errno
import os

import pytest

from dnr_jax import durable
from dnr_jax.io import os_errors


def said(call):
    with pytest.raises(OSError, match=r"\[Errno \d+\]") as error:
        call()
    text = os_errors.explain(error.value)
    assert "\n" not in text
    return text


def test_a_place_is_named_with_its_fault_and_the_cure(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("file")
    cases = {
        "folder": (durable.write_bytes, "Is a directory; there is a folder where a file should be"),
        "file/inner": (durable.write_bytes, "there is a file where a folder should be"),
        "link": (durable.append, "there is a link where a file should be: move it away"),
    }
    for name, (write, wanted) in cases.items():
        text = said(lambda name=name, write=write: write(tmp_path / name, b"x"))
        assert text.startswith(str(tmp_path / name.split("/")[0]))
        assert wanted in text


@pytest.mark.parametrize(
    ("number", "wanted"),
    [
        (errno.ENOSPC, "/a: No space left on device; free some space or choose another disk, then"),
        (errno.EFBIG, "/a: File too large; files may not be so large here"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EACCES, "/a: Permission denied; change its permissions, or choose a place"),
        (errno.EROFS, "--workdir or --config.cache"),
        (errno.ENOENT, "/a: No such file or directory"),
    ],
)
def test_usual_faults_have_their_cure(number, wanted):
    assert wanted in os_errors.explain(OSError(number, os.strerror(number), "/a"))


def test_errors_with_words_of_their_own_keep_them():
    text = "config.data.path is '/x',\n  which does not exist"
    assert os_errors.explain(FileNotFoundError(text)) == " ".join(text.split())
    assert os_errors.explain(OSError(28, "No space left on device")).startswith("No space left")
