"""The critic (docs/method.md, eq. 5): bounded edits of the rewards of an episode's key steps.

The critic sees only the key steps: before a blackout the last decisions and those that were not the best by prediction,
else (or by setting) those where the highest loading or the reward changed most. Nothing is replayed to choose them: all
of it was recorded when the episode was played. It answers with two lists, key-step numbers and levels out of
{-2K, -K, +K, +2K}; at most four edits an episode are taken. Whatever else a reply contains is dropped and counted,
never applied.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ace_ray.language.prompts import Message
from ace_ray.language.reply import json_objects
from ace_ray.language.schema import LEVELS

if TYPE_CHECKING:  # so that critic texts can be written where only numpy is installed
    from ace_ray.config.refine import CriticSettings

_BRACKETS = re.compile(r"\[([^\[\]{}]*)\]")
_MINUS = str.maketrans("\u2212\u2013", "--")  # a minus sign and a dash, which models write for the hyphen
_FACTOR = {"-2K": -2.0, "-K": -1.0, "+K": 1.0, "+2K": 2.0, "2K": 2.0, "K": 1.0, "-1K": -1.0, "+1K": 1.0, "1K": 1.0}


@dataclass(frozen=True)
class EpisodeStep:
    """One decision of an episode.

    Attributes:
        id: Row id of the transition, carried through to the edit.
        step: Environment step of the decision.
        when: Date and time in words; empty if unknown.
        action: The action in words.
        reward: Reward of the transition (over the steps until the next decision).
        rho_before, rho_after: Highest loading (1.0 = limit) at the decision, and at the next one or at the end.
        overloads: Lines above their limit at the decision.
        rank: 1 + the legal slots with a higher score than the action; 0 if that is not known.
        behind: The best legal slot score minus the action's, in units of rho.
    """

    id: int
    step: int
    when: str
    action: str
    reward: float
    rho_before: float
    rho_after: float
    overloads: int = 0
    rank: int = 0
    behind: float = 0.0

    @property
    def off_best(self) -> bool:
        """Whether an action with a higher slot score was at hand."""
        return self.behind > 0


@dataclass(frozen=True)
class KeyStep:
    """A step shown to the critic, and why it was chosen."""

    step: EpisodeStep
    reason: str


@dataclass(frozen=True)
class Edit:
    """A correction to be added to the reward of row `id`; `level` is in units of K."""

    id: int
    change: float
    level: float


@dataclass(frozen=True)
class CriticReply:
    """The edits taken from a reply, and how many of its entries were dropped and why.

    `error` is 'unparsed' when no two lists were found at all, else None.
    """

    edits: tuple[Edit, ...]
    dropped: int
    error: str | None = None
    analysis: str = ""


def key_steps(steps: Sequence[EpisodeStep], settings: CriticSettings) -> list[KeyStep]:
    """The key steps in order of time, at most `settings.key_limit`.

    lookback: before a blackout the last `settings.lookback` decisions; then the earlier ones that were not the best by
    prediction, the latest first; then those after which the highest loading changed most. Of an episode that lasted to
    its end: as rho.
    rho, reward (the paper's three rules without 'action'): the first and the last decision, and those where the highest
    loading changed, or the reward was large, the largest first.
    """
    if not steps:
        return []
    limit = max(2, settings.key_limit)
    chosen: dict[int, str] = {}

    def choose(order: Iterable[int], why: str) -> None:
        for i in order:
            if len(chosen) < limit:
                chosen.setdefault(i, why)

    count = len(steps)
    if settings.key_steps == "lookback" and math.isnan(steps[-1].rho_after):
        choose(range(count - 1, max(-1, count - 1 - settings.lookback), -1), "shortly before the blackout")
        choose((i for i in range(count - 1, -1, -1) if steps[i].off_best), "not the best by prediction")
    else:
        choose([0], "first decision")
        choose([count - 1], "last decision")
    if settings.key_steps == "reward":
        size, least, why = [abs(s.reward) for s in steps], settings.r_high, "large reward"
    else:
        size = [abs(s.rho_after - s.rho_before) if np.isfinite(s.rho_after) else np.inf for s in steps]
        least, why = settings.rho_change, "the highest loading changed much"
    largest = sorted(range(count), key=lambda i: (-size[i], i))
    choose((i for i in largest if size[i] >= least), why)
    return [KeyStep(steps[i], reason) for i, reason in sorted(chosen.items())]


def critic_system(settings: CriticSettings) -> str:
    """Task and format: constant for a run."""
    k = settings.scale
    return (
        "You review the decisions of a controller of a transmission grid. You see the key decisions of one episode. "
        "The loading of a line is its current in percent of its thermal limit; a line that stays above 100 % trips, "
        "and the grid may go black. The reward of a decision is what was earned from it until the next one: a little "
        "for every step on which the grid lives, less the higher the losses; a blackout costs. So it does not show "
        "what the decision caused later. The actions that were possible were ranked by the loading predicted right "
        "after them, of the grid or, if it was not overloaded, of the grid after an outage: rank 1 is the best, and "
        "the points are percent of loading by which the action was worse. The last decisions before a blackout often "
        "only suffer from an earlier one.\n"
        f"Choose at most {settings.edits} decisions whose reward is misleading: lower those that led to the end, raise "
        f"those that helped. With K = {k:g} the changes are -2K, -K, +K, +2K.\n"
        'Reply with one JSON object: {"analysis": "what decided the episode", "steps": [numbers of the decisions], '
        '"changes": [one change for each], "reasons": "why"}. Both lists have the same length; decisions count from 0.'
    )


def critic_user(keys: Sequence[KeyStep], survived: bool, steps_played: int, decisions: int, total: float) -> str:
    """The episode: how it ended, and its key decisions."""
    end = "lasted to its end" if survived else "ended in a blackout"
    lines = [
        f"The episode {end} after {steps_played:,} steps with {decisions:,} decisions and a total reward of "
        f"{total:.2f}.",
        "Key decisions (action and its rank, the highest loading of any line at the decision and at the next one):",
    ]
    for i, key in enumerate(keys):
        s = key.step
        when = f", {s.when}" if s.when else ""
        over = f", {s.overloads} lines above 100 %" if s.overloads > 1 else ""
        after = f"{_percent(s.rho_after)} %" if np.isfinite(s.rho_after) and s.rho_after > 0 else "blackout"
        lines.append(
            f"{i}: step {s.step:,}{when}, {steps_played - s.step:,} before the end. {s.action}{_standing(s)}. "
            f"{_percent(s.rho_before)} % to {after}{over}. Reward {s.reward:.2f}. Chosen: {key.reason}."
        )
    return "\n".join([*lines, suspects_text(keys)])


def suspects(keys: Sequence[KeyStep]) -> list[int]:
    """Numbers of the key steps whose action was not the best by prediction, the latest first."""
    return [i for i, key in reversed(list(enumerate(keys))) if key.step.off_best]


def suspects_text(keys: Sequence[KeyStep]) -> str:
    """What the prompt ends with: a small model reads a list where it would lose count of ranks."""
    numbers = suspects(keys)
    if not numbers:
        return "Each decision was the best by prediction."
    return f"Not the best by prediction, latest first: {', '.join(map(str, numbers))}."


def _standing(step: EpisodeStep) -> str:
    """' (rank 8, 19 points behind)', ' (rank 1)'; nothing where it is not known."""
    if step.rank == 0:
        return ""
    points = min(999, max(1, round(100 * step.behind)))  # 999: the action was predicted to bring a collapse
    return f" (rank {step.rank}, {points} point{'s' if points > 1 else ''} behind)" if step.off_best else " (rank 1)"


def critic_messages(
    keys: Sequence[KeyStep],
    settings: CriticSettings,
    *,
    survived: bool,
    steps_played: int,
    decisions: int,
    total: float,
) -> list[Message]:
    """The chat that asks the critic about one episode."""
    return [
        {"role": "system", "content": critic_system(settings)},
        {"role": "user", "content": critic_user(keys, survived, steps_played, decisions, total)},
    ]


def parse_critic(text: str, keys: Sequence[KeyStep], settings: CriticSettings) -> CriticReply:
    """The edits of a reply.

    Taken is what is well formed, in order: a number of a key step that was not edited yet, with a level of the set (as
    '-2K' or as the number it stands for). Anything else counts as dropped, as does everything beyond the limit.
    """
    lists = _lists(text, settings.scale)
    if lists is None:
        return CriticReply((), 0, "unparsed")
    steps, changes, analysis = lists
    edits: list[Edit] = []
    dropped = abs(len(steps) - len(changes))
    seen: set[int] = set()
    for index, change in zip(steps, changes, strict=False):
        level = _level(change, settings.scale)
        known = isinstance(index, int) and not isinstance(index, bool) and 0 <= index < len(keys)
        if not known or index in seen or level is None or len(edits) >= settings.edits:
            dropped += 1
            continue
        seen.add(index)
        edits.append(Edit(keys[index].step.id, level * settings.scale, level))
    return CriticReply(tuple(edits), dropped, None, analysis)


def _lists(text: str, scale: float) -> tuple[list[Any], list[Any], str] | None:
    """Step numbers, changes and analysis; from the JSON object, else from two bracketed lists in prose.

    In prose other things may stand in brackets too: taken are the first two neighbours of which the second names a
    change of the set, or simply the first two.
    """
    for value in json_objects(text):
        steps, changes = value.get("steps"), value.get("changes")
        if isinstance(steps, list) and isinstance(changes, list):
            analysis = value.get("analysis")
            return steps, changes, analysis if isinstance(analysis, str) else ""
    found = [[x.strip().strip("'\"") for x in row.split(",") if x.strip()] for row in _BRACKETS.findall(text)]
    if len(found) < 2:
        return None
    pairs = itertools.pairwise(found)
    named = (pair for pair in pairs if any(_level(change, scale) is not None for change in pair[1]))
    steps, changes = next(named, (found[0], found[1]))
    return [int(x) if re.fullmatch(r"\d{1,4}", x) else None for x in steps], list(changes), ""


def _level(change: Any, scale: float) -> float | None:
    """A change as a multiple of K out of {-2, -1, 1, 2}, None if it is not in the set."""
    if isinstance(change, str):
        text = change.replace(" ", "").translate(_MINUS).upper()
        if text in _FACTOR:
            return _FACTOR[text]
        try:
            change = float(text)
        except ValueError:
            return None
    if isinstance(change, bool) or not isinstance(change, int | float):
        return None
    near = [level for level in (-2.0, -1.0, 1.0, 2.0) if abs(change - level * scale) < 1e-6]
    return near[0] if near else None


def critic_reply(analysis: str, steps: Sequence[int], levels: Sequence[float], reasons: str) -> str:
    """A reply in the critic's own format, for training targets; levels are multiples of K."""
    names = {-2.0: LEVELS[0], -1.0: LEVELS[1], 1.0: LEVELS[2], 2.0: LEVELS[3]}
    return json.dumps(
        {
            "analysis": analysis,
            "steps": [int(i) for i in steps],
            "changes": [names[float(level)] for level in levels],
            "reasons": reasons,
        },
        separators=(",", ":"),  # the grammar that replies are held to allows no blanks
    )


def _percent(rho: float) -> int:
    return round(100 * rho)
