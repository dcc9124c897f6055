"""A deployment knows when its run is gone."""

import os
from pathlib import Path

import pytest

from llm_service.heartbeat import Heartbeat

pytestmark = pytest.mark.unit


def test_a_run_is_gone_when_its_file_stands_still_for_too_long(tmp_path: Path) -> None:
    file, now = tmp_path / "heartbeat", [0.0]
    watch = Heartbeat(file, 60.0, lambda: now[0])
    now[0] = 1000.0
    assert not watch.gone()  # it was never there
    file.touch()
    os.utime(file, ns=(0, 1))  # a clock that is years behind
    assert not watch.gone()
    now[0] += 59.0
    assert not watch.gone()
    os.utime(file, ns=(0, 2))
    now[0] += 59.0
    assert not watch.gone()
    now[0] += 61.0
    assert watch.gone()


def test_a_run_whose_folder_was_removed_is_gone_too(tmp_path: Path) -> None:
    file, now = tmp_path / "heartbeat", [0.0]
    file.touch()
    watch = Heartbeat(file, 60.0, lambda: now[0])
    assert not watch.gone()
    file.unlink()
    now[0] += 61.0
    assert watch.gone()
