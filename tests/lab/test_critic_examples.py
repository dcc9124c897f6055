"""The critic's training examples: prompt and reply are those of the running system, and the reply can be read off."""

import json
import re

import jsonschema
import numpy as np
import pytest

from ace_ray.config.refine import CriticSettings
from ace_ray.lab.embedded.critic_examples import LabelledEpisode, critic_example, synthetic_episode
from ace_ray.language.critic import critic_messages, critic_system, parse_critic
from ace_ray.language.schema import CRITIC_SCHEMA, KEY_STEPS

pytestmark = pytest.mark.unit
SETTINGS = CriticSettings()


def drawn(count):
    return [synthetic_episode(np.random.default_rng(seed)) for seed in range(count)]


def test_brief_ones_have_few_key_steps():
    assert {len(synthetic_episode(np.random.default_rng(seed), brief=True).keys) for seed in range(60)} == {3, 4, 5, 6}


def test_an_example_has_the_prompt_of_the_running_critic_and_a_reply_within_the_schema():
    for episode in drawn(50):
        example = critic_example(episode, critic_system(SETTINGS))
        assert example.messages == critic_messages(
            episode.keys,
            SETTINGS,
            survived=episode.survived,
            steps_played=episode.steps_played,
            decisions=episode.decisions,
            total=episode.total,
        )
        jsonschema.validate(json.loads(example.reply), CRITIC_SCHEMA)
        said = parse_critic(example.reply, episode.keys, SETTINGS)
        wanted = [(episode.keys[number].step.id, level) for number, level in episode.edits]
        assert [(edit.id, edit.level) for edit in said.edits] == wanted and said.dropped == 0
        assert len(episode.keys) <= KEY_STEPS


def test_the_reply_says_what_the_prompt_ends_with():
    for episode in drawn(50):
        example = critic_example(episode, "")
        shown = re.findall(r"^(\d+): .* behind\)", example.messages[1]["content"], re.MULTILINE)
        last = example.messages[1]["content"].splitlines()[-1]
        assert re.findall(r"\d+", last) == shown[::-1]
        assert json.loads(example.reply)["analysis"].endswith(last)


def test_before_a_blackout_the_latest_that_were_not_the_best_are_lowered_the_last_one_most():
    lost = [episode for episode in drawn(200) if not episode.survived]
    assert len(lost) > 100
    for episode in lost:
        off_best = [i for i, key in enumerate(episode.keys) if key.step.off_best]
        assert [number for number, _ in episode.edits] == off_best[::-1][:4]
        assert [level for _, level in episode.edits] == [-2.0, -1.0, -1.0, -1.0][: len(off_best)]
    assert len({len(episode.edits) for episode in lost}) == 4


def test_what_is_raised_in_an_episode_that_lasted_was_the_best_and_a_relief():
    raised = [episode for episode in drawn(300) if episode.survived and episode.edits]
    assert raised
    for episode in raised:
        ((number, level),) = episode.edits
        step = episode.keys[number].step
        assert level == 1.0 and not step.off_best and step.rho_before - step.rho_after > 0.1


def test_an_episode_is_kept_as_json():
    for episode in (e for e in drawn(30) if e.survived):  # a blackout's last loading is nan, which equals nothing
        assert LabelledEpisode.from_json(episode.to_json()) == episode
