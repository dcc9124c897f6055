"""Training examples of the critic: an episode's key decisions, and the edits that replays or made-up causes call for.

A labelled episode says of some key steps what is known: played action dies while another survives (lower by 2K), all
die (nothing), played action survives where others die (raise by K). Needs neither Grid2Op nor Ray.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ace_ray.finetune.examples import Example, random_date
from ace_ray.language.critic import EpisodeStep, KeyStep, critic_reply, critic_user

_MOST_EDITS = 4


@dataclass(frozen=True)
class LabelledEpisode:
    """The key steps of one episode, and the edits (key-step number, multiple of K) that are right for it."""

    keys: tuple[KeyStep, ...]
    survived: bool
    steps_played: int
    decisions: int
    total: float
    edits: tuple[tuple[int, float], ...]

    def to_json(self) -> str:
        """Inverse of `from_json`."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> LabelledEpisode:
        """Rebuild an episode written by `to_json`."""
        row: dict[str, Any] = json.loads(text)
        row["keys"] = tuple(KeyStep(EpisodeStep(**k["step"]), k["reason"]) for k in row["keys"])
        row["edits"] = tuple((int(i), float(level)) for i, level in row["edits"])
        return cls(**row)


def critic_example(episode: LabelledEpisode, system: str) -> Example:
    """Chat and reply of one labelled episode; `system` is the critic's constant part."""
    user = critic_user(episode.keys, episode.survived, episode.steps_played, episode.decisions, episode.total)
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return Example(messages, _reply(episode))


def _reply(episode: LabelledEpisode) -> str:
    edits = episode.edits[:_MOST_EDITS]
    end = "The grid survived." if episode.survived else f"The grid went black after {episode.steps_played} steps."
    lowered = [i for i, level in edits if level < 0]
    raised = [i for i, level in edits if level > 0]
    reasons = []
    if lowered:
        reasons.append(f"{_decisions(lowered)} led to the end")
    if raised:
        reasons.append(f"{_decisions(raised)} helped")
    text = "; ".join(reasons) + "." if reasons else "No reward is misleading."
    return critic_reply(end, [i for i, _ in edits], [level for _, level in edits], text)


def _decisions(numbers: Sequence[int]) -> str:
    return f"Decision{'s' if len(numbers) > 1 else ''} {' and '.join(map(str, numbers))}"


def synthetic_episode(rng: np.random.Generator) -> LabelledEpisode:
    """A made-up episode: the largest rise of loading before a blackout led to it, a large relief helped."""
    count = int(rng.integers(3, 13))
    survived = bool(rng.random() < 0.3)
    steps = np.sort(rng.choice(2000, size=count, replace=False))
    before = rng.normal(0.95, 0.12, size=count).clip(0.5, 1.9)
    after = (before + rng.normal(0, 0.15, size=count)).clip(0.5, 2.2)
    if not survived:
        after[-1] = 0.0
    keys = []
    for i in range(count):
        reason = {0: "first decision", count - 1: "last decision"}.get(i, "the highest loading changed much")
        reward = -1.0 if i == count - 1 and not survived else float(rng.gamma(2.0, 0.3))
        line, other, sub = (int(n) for n in rng.integers(0, 59, size=3))
        action = str(
            rng.choice(
                [
                    "do nothing",
                    f"substation {sub % 36}: lines {line}, {other} to bus 2",
                    f"substation {sub % 36}: line {line} to bus 1",
                    f"reconnect line {line} ({sub % 36}-{other % 36}) at buses 1-1",
                ]
            )
        )
        when = random_date(rng)
        step = EpisodeStep(
            i, int(steps[i]), when, action, reward, float(before[i]), float(after[i]), int(before[i] > 1) * 2
        )
        keys.append(KeyStep(step, reason))
    rise = after - before
    edits: list[tuple[int, float]] = []
    if not survived:
        edits.append((int(np.argmax(np.where(after > 0, rise, -9))), -2.0))
    relief = int(np.argmin(np.where(after > 0, rise, 9)))
    if rise[relief] < -0.1 and all(relief != i for i, _ in edits):
        edits.append((relief, 1.0))
    edits.sort()
    total = float(sum(k.step.reward for k in keys) * rng.uniform(1, 4))
    return LabelledEpisode(tuple(keys), survived, int(steps[-1]) + 1, count * 3, round(total, 2), tuple(edits))
