"""Names of agents: runs whose paths hold an `@`, and agents of others by where they lie."""

import json
import sys
from pathlib import Path

import pytest

from ace_ray.agents import registry
from ace_ray.config.errors import AceError, ConfigError
from ace_ray.policy.checkpoint import CARD

pytestmark = pytest.mark.unit

MAKER = "def make_agent(env, path):\n    return {!r}, path\n"


def run_at(folder: Path) -> Path:
    """A run folder as far as finding a checkpoint goes."""
    for version in (0, 30):
        (folder / "checkpoints" / f"{version:06d}").mkdir(parents=True)
        (folder / "checkpoints" / f"{version:06d}" / CARD).write_text("{}")
    return folder


@pytest.mark.parametrize("name", ["small", "me@corp/small", "a@0/b@N/small", "small@7", "small@N", "@"])
def test_an_at_sign_in_a_path_belongs_to_the_path(tmp_path, monkeypatch, name):
    run = run_at(tmp_path / name)
    monkeypatch.setenv("ACE_RUNS", str(tmp_path))
    for spelled in (str(run), name):
        assert registry.policy_folder(spelled).name == "000030"
        assert registry.policy_folder(f"{spelled}@0").name == "000000"
        assert registry.policy_folder(f"{spelled}@N").name == "000030"
        found = registry.saved_policy(f"policy+check:{spelled}@0")
        assert found.checked and found.folder.name == "000000" and str(found) == f"policy+check:{spelled}@0"


def test_what_is_no_run_is_named_as_it_was_given(tmp_path, monkeypatch):
    monkeypatch.setenv("ACE_RUNS", str(tmp_path))
    run_at(tmp_path / "small")
    for spec, words in {
        "policy:me@corp": "no run 'me@corp'",
        "policy:small@last": "no run 'small@last'",
        "policy:@0": "no run ''",
        "policy:": "no run ''",
        "policy:small@7": "run small has no checkpoint 7",
    }.items():
        with pytest.raises(AceError, match=words):
            registry.check(spec)


@pytest.mark.parametrize("name", ["agent-v1.2", "json", "ace_ray", "numpy", "1st"])
def test_a_submission_is_the_one_that_lies_there_whatever_its_name(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("from .inner import make_agent\n")
    (folder / "inner.py").write_text(MAKER.format(name))
    (folder / "alone.v2.py").write_text(MAKER.format("alone"))
    before = json, sys.modules["ace_ray"]
    assert registry.make(f"{folder}:make_agent", None, None) == (name, str(folder))
    assert registry.make(f"{folder / 'alone.v2.py'}:make_agent", None, None) == ("alone", str(folder))
    assert (sys.modules["json"], sys.modules["ace_ray"]) == before


def test_two_submissions_of_one_name_are_two(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place / "submission").mkdir(parents=True)
        (tmp_path / place / "submission" / "__init__.py").write_text(MAKER.format(place))
    for place in ("a", "b", "a"):
        assert registry.make(f"{tmp_path / place / 'submission'}:make_agent", None, None)[0] == place


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("__init__.py", "def make_agent(:", "SyntaxError"),
        ("__init__.py", "raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("__init__.py", "", "no attribute 'make_agent'"),
        ("agent.py", MAKER, "__init__.py"),
    ],
)
def test_an_agent_that_cannot_be_loaded_is_told_before_any_work(tmp_path, file, text, words):
    (tmp_path / file).write_text(text)
    with pytest.raises(ConfigError, match=words):
        registry.check(f"{tmp_path}:make_agent")
