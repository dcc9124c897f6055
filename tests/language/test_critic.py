"""The critic: which steps it sees, and which of its edits are taken."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ace_ray.config.refine import CriticSettings
from ace_ray.language.critic import (
    EpisodeStep,
    KeyStep,
    critic_messages,
    critic_reply,
    key_steps,
    parse_critic,
    suspects,
)

pytestmark = pytest.mark.unit
SETTINGS = CriticSettings(scale=0.2, edits=4)


def step(i, before=0.8, after=0.8, reward=0.1, rank=1, behind=0.0):
    return EpisodeStep(100 + i, 5 * i, "", "do nothing", reward, before, after, 0, rank, behind)


KEYS = [KeyStep(step(i), "first decision") for i in range(6)]


def test_key_steps_are_first_last_and_the_largest_changes_of_the_highest_loading():
    steps = [step(i) for i in range(30)]
    steps[7], steps[11] = step(7, 0.8, 1.3), step(11, 1.3, 0.9)
    keys = key_steps(steps, CriticSettings(key_steps="rho", rho_change=0.1))
    assert [k.step.id for k in keys] == [100, 107, 111, 129]


def test_with_reward_the_size_of_the_reward_decides():
    steps = [step(i, 0.8, 1.3, reward=0.05) for i in range(10)]
    steps[4] = step(4, reward=-1.0)
    keys = key_steps(steps, CriticSettings(key_steps="reward", r_high=0.1))
    assert [k.step.id for k in keys] == [100, 104, 109]


def test_no_more_key_steps_than_the_limit_the_largest_first():
    steps = [step(i, 0.5, 0.5 + 0.02 * i) for i in range(50)]
    keys = key_steps(steps, CriticSettings(key_steps="rho", key_limit=5))
    assert [k.step.id for k in keys] == [100, 146, 147, 148, 149]


def test_an_unknown_loading_after_the_step_counts_as_the_largest_change():
    steps = [step(i, 0.5, 0.9) for i in range(9)]
    steps[3] = step(3, 0.9, math.nan)
    assert 103 in [k.step.id for k in key_steps(steps, CriticSettings(key_steps="rho", key_limit=3))]


def blackout(count=60, **others):
    """An episode that ends in a blackout; the decisions named so ('off7') were not the best by prediction."""
    steps = [step(i) for i in range(count)]
    for name, behind in others.items():
        i = int(name.removeprefix("off"))
        steps[i] = step(i, rank=5, behind=behind)
    steps[-1] = step(count - 1, 0.9, math.nan)
    return steps


def test_before_a_blackout_the_last_decisions_are_key_and_the_latest_that_were_not_the_best_by_prediction():
    steps = blackout(off3=0.5, off20=0.001, off30=0.2, off40=0.01, off57=0.1)
    keys = key_steps(steps, CriticSettings(lookback=4, key_limit=7))
    assert [k.step.id for k in keys] == [120, 130, 140, 156, 157, 158, 159]
    assert [k.reason for k in keys] == ["not the best by prediction"] * 3 + ["shortly before the blackout"] * 4


def test_what_room_the_look_back_leaves_goes_to_the_largest_changes_of_the_highest_loading():
    steps = blackout(off30=0.2)
    steps[12], steps[20] = step(12, 0.8, 1.4), step(20, 0.8, 0.85)
    keys = key_steps(steps, CriticSettings(lookback=2, key_limit=16))
    assert [k.step.id for k in keys] == [112, 130, 158, 159]


def test_an_episode_that_lasted_is_shown_by_its_largest_changes_whatever_was_the_best():
    steps = blackout(off30=0.2)
    steps[-1], steps[12] = step(59), step(12, 0.8, 1.4)
    assert [k.step.id for k in key_steps(steps, CriticSettings(lookback=4))] == [100, 112, 159]


@given(
    st.lists(st.tuples(st.floats(0, 2), st.floats(0, 3), st.booleans()), min_size=1, max_size=80),
    st.integers(1, 20),
    st.integers(1, 32),
    st.sampled_from(["lookback", "rho", "reward"]),
)
def test_key_steps_are_steps_of_the_episode_in_order_and_within_the_limit(figures, lookback, limit, rule):
    steps = [step(i, rho, rho, behind=behind) for i, (rho, behind, _) in enumerate(figures)]
    if figures[-1][2]:
        steps[-1] = step(len(steps) - 1, 1.0, math.nan)
    keys = key_steps(steps, CriticSettings(key_steps=rule, lookback=lookback, key_limit=limit))
    numbers = [key.step.id - 100 for key in keys]
    assert numbers == sorted(set(numbers)) and len(numbers) <= max(2, limit)
    if figures[-1][2]:
        assert numbers[-1] == len(steps) - 1


def test_the_prompt_says_how_the_episode_ended_and_numbers_the_steps_from_zero():
    last = KeyStep(step(9, 1.2, math.nan, -1.0, rank=8, behind=0.194), "last decision")
    text = critic_messages(
        KEYS[:1] + [last, KeyStep(step(11, rank=0), "unknown")],
        SETTINGS,
        survived=False,
        steps_played=1046,
        decisions=10,
        total=0.4,
    )[1]["content"]
    assert "ended in a blackout after 1,046 steps with 10 decisions" in text
    assert "\n0: step 0, 1,046 before the end. do nothing (rank 1). 80 % to 80 %." in text
    assert (
        "\n1: step 45, 1,001 before the end. do nothing (rank 8, 19 points behind). "
        "120 % to blackout. Reward -1.00. Chosen: last decision." in text
    )
    assert "do nothing. 80 % to 80 %" in text.splitlines()[-2]


def test_the_prompt_ends_with_the_decisions_that_were_not_the_best_the_latest_first():
    told = dict(survived=False, steps_played=9, decisions=6, total=0)
    assert critic_messages(KEYS, SETTINGS, **told)[1]["content"].splitlines()[-1] == (
        "Each decision was the best by prediction."
    )
    keys = [KeyStep(step(i, rank=1 + i % 3, behind=0.1 * (i % 3)), "x") for i in range(6)]
    assert suspects(keys) == [5, 4, 2, 1]
    assert critic_messages(keys, SETTINGS, **told)[1]["content"].splitlines()[-1] == (
        "Not the best by prediction, latest first: 5, 4, 2, 1."
    )


@pytest.mark.parametrize(
    ("behind", "words"), [(1e-5, "1 point behind"), (0.014, "1 point behind"), (1e9, "999 points")]
)
def test_an_action_that_was_not_the_best_is_never_shown_as_no_point_behind(behind, words):
    keys = [KeyStep(step(0, rank=2, behind=behind), "x")]
    assert words in critic_messages(keys, SETTINGS, survived=True, steps_played=9, decisions=1, total=0)[1]["content"]


def test_edits_are_taken_from_the_two_lists():
    found = parse_critic(critic_reply("x", [0, 3], [-2.0, 1.0], "y"), KEYS, SETTINGS)
    assert [(e.id, e.change) for e in found.edits] == [(100, pytest.approx(-0.4)), (103, pytest.approx(0.2))]
    assert (found.dropped, found.error) == (0, None)


def test_numbers_stand_for_levels_where_they_are_in_the_set():
    text = json.dumps({"steps": [0, 1, 2, 3], "changes": [-0.4, "+0.2", 0.3, "0.4"]})
    found = parse_critic(text, KEYS, SETTINGS)
    assert [(e.id, e.level) for e in found.edits] == [(100, -2.0), (101, 1.0), (103, 2.0)]
    assert found.dropped == 1


@pytest.mark.parametrize(
    ("steps", "changes", "ids", "dropped"),
    [
        ([0, 6, -1, 2], ["+K", "+K", "+K", "+K"], [100, 102], 2),
        ([0, 0, 1], ["+K", "-K", "-K"], [100, 101], 1),
        ([0, 1, 2], ["+K"], [100], 2),
        ([0, 1], ["+3K", "K+"], [], 2),
        (["0", True, 1.0, None], ["+K"] * 4, [], 4),
        ([0, 1, 2, 3, 4], ["+K"] * 5, [100, 101, 102, 103], 1),
    ],
)
def test_wrong_indices_levels_repetitions_and_surplus_are_dropped_and_counted(steps, changes, ids, dropped):
    found = parse_critic(json.dumps({"steps": steps, "changes": changes}), KEYS, SETTINGS)
    assert [e.id for e in found.edits] == ids
    assert found.dropped == dropped


def test_lists_in_prose_are_read():
    text = "I would lower two of them.\nIndices: [1, 4]\nAdjustments: [-0.4, +0.2]\nBecause [1] led to the end."
    found = parse_critic(text, KEYS, SETTINGS)
    assert [(e.id, e.level) for e in found.edits] == [(101, -2.0), (104, 1.0)]


@pytest.mark.parametrize(
    "text",
    [
        "Lines [3, 5] were hot after [2]. So steps [1, 4], changes ['-2K', '+K'], as line [3] tripped.",
        'The steps are {"steps": [1, 4], "changes": ["-2K", "+K"]} (see line [3]).',
        "**Indices**: [1, 4]\n**Adjustments**: [ -0.4 , 0.2 ]\n[4] relieved line [5]",
        '```json\n{"analysis": "a [b]", "steps": [1, 4], "changes": ["-2K", "+K"], "reasons": "[4]"}\n```\nSo be it.',
        "Indices: [1, 4]\nAdjustments: [\u22120.4, +0.2]",
        "Steps: [1, 4]. Changes: [\u20132K, +1K].",
    ],
)
def test_the_lists_are_found_in_prose_fences_and_with_other_minus_signs(text):
    found = parse_critic(text, KEYS, SETTINGS)
    assert [(e.id, e.level) for e in found.edits] == [(101, -2.0), (104, 1.0)] and found.dropped == 0


@pytest.mark.parametrize("text", ["", "nothing to change", '{"steps": [1]}', "[1, 2]", '{"steps": 1, "changes": 2}'])
def test_without_two_lists_the_reply_is_unparsed(text):
    found = parse_critic(text, KEYS, SETTINGS)
    assert (found.edits, found.error) == ((), "unparsed")


@given(st.text(alphabet='[]{}":,-+K0123456789 steps changes', max_size=200))
def test_no_reply_makes_more_or_larger_edits_than_allowed(text):
    found = parse_critic(text, KEYS, SETTINGS)
    assert len(found.edits) <= SETTINGS.edits
    assert len({e.id for e in found.edits}) == len(found.edits)
    assert all(abs(e.change) in (pytest.approx(0.2), pytest.approx(0.4)) for e in found.edits)
