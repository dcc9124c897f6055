"""Files are written whole or not at all, locks are waited for, and disk errors name the remedy."""

import errno
import fcntl
import logging
import os
import subprocess
import sys
import time

import pytest

from ace_ray.config import files
from ace_ray.config.errors import RunFolderError

pytestmark = pytest.mark.unit


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"b": 1})
    with pytest.raises(ZeroDivisionError), files.replacing(path) as unfinished:
        unfinished.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == '{\n "b": 1\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_takes_the_place_of_the_old_one(tmp_path):
    for content in ("old", "new"):
        with files.replacing(tmp_path / "deep" / "folder", parents=True) as unfinished:
            unfinished.mkdir()
            (unfinished / content).write_text(content)
    assert [p.name for p in (tmp_path / "deep" / "folder").iterdir()] == ["new"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "no space left for"), (errno.EROFS, "cannot write"), (errno.EACCES, "cannot write")],
)
def test_disk_errors_name_the_path_and_the_remedy(tmp_path, code, words):
    with pytest.raises(RunFolderError, match=words) as error, files.replacing(tmp_path / "x"):
        raise OSError(code, "x")
    assert str(tmp_path / "x") in str(error.value) and error.value.remedy


def test_a_target_that_is_a_folder_or_lies_under_a_file_is_told_as_a_message(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "folder", tmp_path / "file" / "x.json"):
        with pytest.raises(RunFolderError, match=f"cannot write {target}"):
            files.write_json(target, {}, parents=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


HOLD = (
    "import sys, time\n"
    "from pathlib import Path\n"
    "from ace_ray.config import files\n"
    "lock = files.lock(Path(sys.argv[1]))\n"
    "print('locked', flush=True); time.sleep(float(sys.argv[2]))\n"
)


def hold(path, seconds: float) -> subprocess.Popen:
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline().strip() == "locked"
    return other


def test_a_lock_is_waited_for_with_a_word_and_not_for_ever(tmp_path, monkeypatch, caplog):
    path = tmp_path / "lock"
    monkeypatch.setattr(files, "TELL_SECONDS", 0.3)
    other = hold(path, 1.0)
    with caplog.at_level(logging.INFO), files.lock(path):
        assert f"waiting for the lock of {tmp_path} (pid {other.pid} on" in caplog.text
        assert path.read_text().startswith(f"pid {os.getpid()} on ")
        monkeypatch.setattr(files, "LEASE_SECONDS", 0.3)
        with pytest.raises(RunFolderError, match=f"{tmp_path} is in use"):
            files.lock(path)
    other.wait()
    files.lock(path).close()


def test_who_has_no_patience_is_refused_by_the_living_and_waits_for_the_lease_of_another_node(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    monkeypatch.setattr(files, "LEASE_SECONDS", 1.0)
    other = hold(path, 60)
    try:
        began = time.monotonic()
        with pytest.raises(RunFolderError, match=rf"in use by another process \(pid {other.pid} on "):
            files.lock(path, patient=False)
        assert time.monotonic() - began < 0.9
        path.write_text("pid 1 on another-node")
        with pytest.raises(RunFolderError, match="another-node"):
            files.lock(path, patient=False)
        assert time.monotonic() - began > 1.0
        assert files.is_locked(path) is True
    finally:
        other.kill()
        other.wait()
    assert files.is_locked(path) is False, "a killed process leaves no lock"
    assert files.is_locked(tmp_path / "none") is None


def test_a_file_system_without_locks_is_named_at_once(tmp_path, monkeypatch):
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(RunFolderError, match="does not support file locks") as error:
        files.lock(tmp_path / "lock")
    assert "runs_root" in error.value.remedy
    assert files.is_locked(tmp_path / "lock") is None
