"""Outputs are found unwritable before there is anything to lose."""

import pytest

from ace_ray.config.errors import ConfigError
from ace_ray.config.outputs import writable_file, writable_folder

pytestmark = pytest.mark.unit


def test_what_can_be_written_is_told_without_a_trace(tmp_path):
    (tmp_path / "old.json").write_text("kept")
    before = sorted(tmp_path.rglob("*"))
    for name in ("old.json", "new.json", "a/b/new.json"):
        assert writable_file(str(tmp_path / name)) == tmp_path / name
    for name in ("", "new", "a/b"):
        assert writable_folder(str(tmp_path / name)) == tmp_path / name
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / "old.json").read_text() == "kept"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("folder", "it is a folder"),
        ("file/r.json", "Not a directory"),
        ("file/deep/r.json", "Not a directory"),
        ("/dev/null", "not a regular file"),
        ("/proc/x/r.json", "No such file"),
        ("n" * 300 + "/r.json", "name too long"),
    ],
)
def test_a_file_that_cannot_be_written_is_named_with_the_reason(tmp_path, name, words):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=words) as caught:
        writable_file(tmp_path / name)
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["file", "file/x", "/proc/x"])
def test_a_folder_that_cannot_be_written_into_is_named(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot write into"):
        writable_folder(tmp_path / name)
