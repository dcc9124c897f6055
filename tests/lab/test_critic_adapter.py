"""The critic's adapter: it learns, is sealed as a run's versions are, and lies where a run looks for it."""

import shutil

import numpy as np
import pytest

from ace_ray.config.refine import CriticSettings
from ace_ray.lab.embedded import critic_adapter
from ace_ray.lab.embedded.card import card
from ace_ray.lab.embedded.critic_adapter import CriticRecipe, build_critic, critic_lessons, reading
from ace_ray.lab.embedded.critic_examples import critic_example, synthetic_episode
from ace_ray.language.critic import critic_system
from llm_service.adapters import model_fingerprint, verify
from llm_service.errors import ModelError
from llm_service.published import PublishedVersions, shipped
from llm_service.settings import EMBEDDED
from tests.llm_service.tiny_model import make_tiny_model

pytestmark = pytest.mark.unit
RECIPE = CriticRecipe(examples=12, batch=4, lr=1e-2, rank=4, seed=3)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A tiny random model with an adapter of three steps."""
    model = make_tiny_model(tmp_path_factory.mktemp("critic") / "model", max_positions=8192)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(critic_adapter, "_HELD_OUT", 2)
        record = build_critic(model, None, RECIPE, "cpu")
    return model, record


def test_the_adapter_is_a_version_that_a_run_begins_with(built, tmp_path):
    model, record = built
    PublishedVersions(tmp_path).begin_with(shipped(model))
    ref = PublishedVersions(tmp_path).current("critic")
    assert ref is not None and ref.version == 1
    manifest = verify(ref, base_model=model_fingerprint(model), max_rank=16)
    assert manifest["rank"] == 4
    assert manifest["extra"] == record
    assert record["training"]["steps"] == 3 and record["training"]["last_loss"] < record["training"]["first_loss"]
    assert record["made_up"]["episodes"] == 2
    assert str(model.parent) not in (model / "adapters" / "critic-v1" / "adapter_config.json").read_text()


def test_a_second_build_takes_the_place_of_the_first(built, tmp_path, monkeypatch):
    model = shutil.copytree(built[0], tmp_path / "model")
    before = PublishedVersions(shipped(model)).current("critic")
    monkeypatch.setattr(critic_adapter, "_HELD_OUT", 1)
    build_critic(model, None, CriticRecipe(examples=4, batch=4, rank=8), "cpu")
    after = PublishedVersions(shipped(model)).current("critic")
    assert after.version == before.version and after.sha256 != before.sha256
    verify(after, base_model=model_fingerprint(model), max_rank=16)


def test_lessons_depend_on_seed_and_number_alone_and_mix_in_planted_episodes():
    planted = [synthetic_episode(np.random.default_rng(99))]
    few, many = (critic_lessons([], CriticRecipe(examples=n, seed=5)) for n in (6, 9))
    assert many[:6] == few
    mixed = critic_lessons(planted, CriticRecipe(examples=40, planted=0.5, seed=5))
    shared = [lesson for lesson in mixed if lesson.reply == reply_of(planted[0])]
    assert 10 <= len(shared) <= 30


def reply_of(episode):
    return critic_example(episode, critic_system(CriticSettings())).reply


def test_reading_counts_what_replies_say(monkeypatch):
    episodes = critic_adapter.held_out(0)[:12]
    right = [reply_of(episode) for episode in episodes]

    def replies(texts):
        monkeypatch.setattr(critic_adapter, "local_replier", lambda *_: lambda chats: texts)
        return reading(EMBEDDED, None, episodes, "cpu")

    assert replies(right) == {"episodes": 12, "parsed": 1.0, "exact": 1.0, "first_lowered": 1.0}
    lost = [i for i, e in enumerate(episodes) if e.edits and e.edits[0][1] < 0]
    wrong = replies(["no lists", *right[1:]])
    assert wrong["parsed"] == pytest.approx(11 / 12, abs=1e-4)
    assert 0 in lost and wrong["first_lowered"] == pytest.approx(1 - 1 / len(lost), abs=1e-4)
    raised = [text.replace('"-2K"', '"+2K"') for text in right]
    assert replies(raised)["first_lowered"] == 0.0


def test_a_folder_without_a_model_is_one_clear_error(tmp_path):
    with pytest.raises(ModelError, match="cannot be loaded"):
        build_critic(tmp_path, None, CriticRecipe(examples=1), "cpu")


def test_the_shipped_adapter_belongs_to_the_shipped_model_and_the_card_tells_of_it():
    ref = PublishedVersions(shipped(EMBEDDED)).current("critic")
    manifest = verify(ref, base_model=model_fingerprint(EMBEDDED), max_rank=16)
    assert manifest["extra"]["made_up"]["exact"] > 0.5
    assert "The critic's adapter" in card(EMBEDDED)
