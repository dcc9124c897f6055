"""LATEST.json: one pointer for every process of a run."""

import shutil
import threading
from pathlib import Path

import pytest

from llm_service.adapters import AdapterRef
from llm_service.errors import AdapterError
from llm_service.published import PublishedVersions

pytestmark = pytest.mark.unit


def _ref(folder: Path, role: str, version: int) -> AdapterRef:
    return AdapterRef(role, version, str(folder / f"{role}-v{version}"), f"hash of {role}-v{version}")


def test_nothing_is_published_in_a_new_run(tmp_path: Path) -> None:
    assert PublishedVersions(tmp_path / "adapters").current("actor") is None


def test_a_flip_is_seen_by_another_reader(tmp_path: Path) -> None:
    writer, reader = PublishedVersions(tmp_path), PublishedVersions(tmp_path)
    writer.flip(_ref(tmp_path, "actor", 1))
    assert reader.current("actor") == _ref(tmp_path, "actor", 1)
    writer.flip(_ref(tmp_path, "actor", 2))
    assert reader.current("actor") == _ref(tmp_path, "actor", 2)
    assert reader.current("critic") is None


def test_flips_of_two_roles_at_once_lose_nothing(tmp_path: Path) -> None:
    def publish(role: str) -> None:
        for version in range(1, 21):
            PublishedVersions(tmp_path).flip(_ref(tmp_path, role, version))

    threads = [threading.Thread(target=publish, args=(role,)) for role in ("actor", "critic", "teacher")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    published = PublishedVersions(tmp_path).all()
    assert {role: ref.version for role, ref in published.items()} == {"actor": 20, "critic": 20, "teacher": 20}


def test_a_run_folder_may_move(tmp_path: Path) -> None:
    PublishedVersions(tmp_path / "old").flip(_ref(tmp_path / "old", "actor", 1))
    shutil.move(tmp_path / "old", tmp_path / "new")
    ref = PublishedVersions(tmp_path / "new").current("actor")
    assert ref is not None
    assert ref.path == str(tmp_path / "new" / "actor-v1")


def test_a_version_of_another_run_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="is not in"):
        PublishedVersions(tmp_path / "mine").flip(_ref(tmp_path / "theirs", "actor", 1))
