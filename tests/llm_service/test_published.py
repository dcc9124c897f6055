"""LATEST.json: one pointer for every process of a run."""

import shutil
import threading
from pathlib import Path

import pytest

from llm_service.adapters import AdapterRef, next_version
from llm_service.errors import AdapterError
from llm_service.published import SHIPPED, PublishedVersions, shipped

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


def _model_with_versions(model: Path) -> Path:
    shelf = model / SHIPPED
    for role in ("critic", "teacher"):
        (shelf / f"{role}-v1").mkdir(parents=True)
        (shelf / f"{role}-v1" / "manifest.json").write_text(role)
        PublishedVersions(shelf).flip(_ref(shelf.resolve(), role, 1))
    return model


def test_a_run_begins_with_a_copy_of_what_ships_with_its_model(tmp_path: Path) -> None:
    model, run = _model_with_versions(tmp_path / "model"), tmp_path / "adapters"
    assert shipped(model) == model / SHIPPED
    PublishedVersions(run).begin_with(shipped(model))
    shutil.rmtree(model)  # the run has all it needs
    published = PublishedVersions(run)
    assert published.current("critic") == _ref(run, "critic", 1)
    assert (run / "teacher-v1" / "manifest.json").read_text() == "teacher"
    assert next_version(run, "critic") == 2


def test_a_run_that_has_published_goes_on_with_its_own(tmp_path: Path) -> None:
    run = tmp_path / "adapters"
    PublishedVersions(run).flip(_ref(run, "critic", 5))
    PublishedVersions(run).begin_with(shipped(_model_with_versions(tmp_path / "model")))
    assert PublishedVersions(run).all() == {"critic": _ref(run, "critic", 5)}


def test_a_model_without_versions_begins_a_run_with_none(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert shipped(tmp_path / "model") is None
    published = PublishedVersions(tmp_path / "adapters")
    published.begin_with(shipped(tmp_path / "model"))
    assert published.all() == {}
