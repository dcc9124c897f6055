"""One state for a person: the prompt, each reply, and what the replay said of it, round by round."""

import json

import pytest

from ace_ray.config.grid import CandidateSettings, CompareSettings, GridSettings
from ace_ray.config.refine import LanguageSettings, RefineSettings
from ace_ray.config.run import RunSettings
from ace_ray.lab.exam.ask import Question
from llm_service.fake import FakeClient

pytestmark = pytest.mark.unit

SETTINGS = RunSettings(
    grid=GridSettings(
        compare=CompareSettings(horizon=12, first=3), candidates=CandidateSettings(slots=16, shortlist=32, memory=0)
    ),
    refine=RefineSettings(rounds=3),
    language=LanguageSettings(candidates=4),
)


def test_prompt_reply_and_replay_are_told_round_by_round():
    question = Question(SETTINGS, "validation:1;steps=60", step=0)
    listed = question.words.case(
        question.comparator.observation(question.snapshot), question.comparator.decision(question.snapshot)
    ).candidates
    number = next(n for n, shown in enumerate(listed) if shown.id != question.played)
    replies = [
        "I do not know.",
        json.dumps({"action": {"candidate": number}}),
        json.dumps({"action": {"candidate": 99}}),
    ]
    told: list[str] = []
    client = FakeClient(replies)
    asked = question.ask(client, told.append)
    text = "\n".join(told)
    assert text.startswith("[system]\nYou advise the operators") and "Bad example: " in text
    assert "[round 1: fake" in text and "I do not know.\n-> unparsed" in text
    second = asked.rounds[1]
    assert second.id == listed[number].id and "-> replayed: the grid " in text and f": {second.verdict}" in text
    assert len(asked.rounds) == (2 if second.verdict == "better" else 3)
    assert "Tried since" in client.requests[1].messages[-1]["content"]
    assert second.outcome == question.comparator.outcome(question.snapshot, listed[number].id)
