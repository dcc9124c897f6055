"""Training examples of the critic: an episode's key decisions, and the edits that replays or made-up causes call for.

Of a real episode it is known what one decision led to, because it was planted (`planting`): a blackout where another
action survives (lower by 2K), or survival where others die (raise by K). Needs neither Grid2Op nor Ray.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ace_ray.finetune.examples import Example, random_date
from ace_ray.language.critic import EpisodeStep, KeyStep, critic_reply, critic_user, suspects, suspects_text
from ace_ray.language.schema import MAX_EDITS


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
    edits = episode.edits[:MAX_EDITS]
    end = "The grid survived." if episode.survived else f"The grid went black after {episode.steps_played:,} steps."
    end += f" {suspects_text(episode.keys)}"
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


def blamed(keys: Sequence[KeyStep]) -> list[tuple[int, float]]:
    """The edits that the shown figures alone suggest after a blackout: of the decisions that were not the best by
    prediction the latest is lowered by 2K and up to three before it by K.

    Of replayed episodes with one known bad decision this finds it more often than the points behind or the climb of the
    loading do (results/language-model.md)."""
    return [(i, -2.0 if n == 0 else -1.0) for n, i in enumerate(suspects(keys)[:MAX_EDITS])]


def synthetic_episode(rng: np.random.Generator, brief: bool = False) -> LabelledEpisode:
    """A made-up episode, so that the words and figures are learned before the few real ones.

    Before a blackout one decision that was not the best by prediction starts a climb of the highest loading. Others
    before and after it were not the best either. What is lowered is what an episode tells without a replay (`blamed`).
    In an episode that lasted, a large relief by the best action is raised.

    Args:
        brief: only a few key steps.
    """
    count = int(rng.integers(3, 7 if brief else 17))
    survived = bool(rng.random() < 0.25)
    steps = np.sort(rng.choice(int(rng.choice([60, 300, 2000])), size=count, replace=False))
    rho = rng.normal(0.93, 0.05, size=count + 1).clip(0.6, 1.1)
    off = rng.random(count) < float(rng.choice([0.1, 0.3, 0.6]))
    behind = np.where(off, rng.lognormal(-4.0, 1.5, size=count), 0.0)
    if not survived:
        cause = int(rng.integers(count))
        behind[cause] = rng.lognormal(-3.0, 1.5)
        rho[cause + 1 :] += np.cumsum(rng.gamma(1.0, 0.08, size=count - cause))
        later = np.arange(count) > cause
        behind[later & (rng.random(count) < float(rng.choice([0.5, 0.9, 1.0])))] = 0.0
    keys = []
    for i in range(count):
        last = i == count - 1 and not survived
        step = EpisodeStep(
            i,
            int(steps[i]),
            random_date(rng),
            _action(rng),
            -1.0 if last else round(float(rng.gamma(2.0, 0.15)), 4),
            float(rho[i]),
            float("nan") if last else float(rho[i + 1]),
            int(rng.integers(1, 6)) if rho[i] > 1 else 0,
            1 if behind[i] == 0 else int(rng.integers(2, 60)),
            float(min(behind[i], 9.0)),
        )
        keys.append(KeyStep(step, _reason(step, i, count, survived)))
    edits = blamed(keys) if not survived else []
    fall = rho[:-1] - rho[1:]
    relief = int(np.argmax(fall))
    if survived and fall[relief] > 0.1 and behind[relief] == 0:
        edits = [(relief, 1.0)]
    total = float(sum(key.step.reward for key in keys) * rng.uniform(1, 4))
    end = int(steps[-1] + rng.integers(1, 9))
    return LabelledEpisode(tuple(keys), survived, end, count * int(rng.integers(1, 9)), round(total, 2), tuple(edits))


def _action(rng: np.random.Generator) -> str:
    line, other, sub = (int(n) for n in rng.integers(0, 59, size=3))
    texts = (
        "do nothing",
        f"substation {sub % 36}: lines {line}, {other} to bus 2",
        f"substation {sub % 36}: line {line} to bus 1; generator {other % 22} to bus 2",
        f"disconnect line {line} ({sub % 36}-{other % 36})",
        f"reconnect line {line} ({sub % 36}-{other % 36}) at buses 1-1",
    )
    return texts[int(rng.integers(len(texts)))]


def _reason(step: EpisodeStep, number: int, count: int, survived: bool) -> str:
    if survived:
        return {0: "first decision", count - 1: "last decision"}.get(number, "the highest loading changed much")
    if count - number <= 10:
        return "shortly before the blackout"
    return "not the best by prediction" if step.off_best else "the highest loading changed much"
