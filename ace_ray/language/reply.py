"""Reading replies. The text of a model is data: it is parsed as JSON and looked up in the catalogue, never run.

Three things can be wrong with a reply, and each costs a round, nothing more: `unparsed` (no JSON object with an
action of a known form), `illegal` (not in the list or the catalogue, or not possible now) and `repeats` (the bad
example, or what was tried before).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ace_ray.language.schema import LINE_STATUS
from ace_ray.language.view import CaseView

if TYPE_CHECKING:  # so that replies can be read and written where Grid2Op is not installed
    import numpy as np

    from ace_ray.grid.physics.catalogue import Catalogue

ReplyError = Literal["unparsed", "illegal", "repeats"]


@dataclass(frozen=True)
class ActorReply:
    """A parsed reply: the two texts and the action as the model wrote it."""

    analysis: str
    why_bad: str
    action: dict[str, Any]


@dataclass(frozen=True)
class Resolved:
    """The catalogue id that a reply names, or why there is none (`id` is kept for 'illegal' and 'repeats' if known)."""

    id: int | None
    error: ReplyError | None
    reply: ActorReply | None = None

    @property
    def playable(self) -> int | None:
        """The id, only if nothing is wrong with it."""
        return self.id if self.error is None else None


def json_objects(text: str) -> Iterator[dict[str, Any]]:
    """Every JSON object that starts somewhere in a text, outermost first; prose and code fences are skipped."""
    decoder = json.JSONDecoder()
    at = text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            if isinstance(value, dict):
                yield value
        at = text.find("{", end)


def parse_actor(text: str) -> ActorReply | None:
    """The first object with an action of a known form, None if there is none (a truncated reply, prose, nonsense).

    An action that stands alone is read only where it is the whole reply: inside other text it is the rest of a reply
    that was cut.
    """
    for value in json_objects(text):
        alone = "action" not in value and text.strip().startswith("{") and text.strip().endswith("}")
        action = value if alone and text.count("{") == 1 else value.get("action")
        if isinstance(action, dict) and _form(action) is not None:
            return ActorReply(_string(value.get("analysis")), _string(value.get("why_bad")), action)
    return None


def resolve(
    text: str, case: CaseView, catalogue: Catalogue, legal: np.ndarray, taken: Collection[int] = ()
) -> Resolved:
    """What a reply asks for.

    Args:
        text: the model's reply.
        case: the case as it was shown (candidate numbers refer to it).
        catalogue: looks up substations and lines.
        legal: [N] bool, the actions that are legal now (`catalogue.legal(obs)`).
        taken: ids that may not be proposed again (earlier rounds); the bad example is added.
    """
    reply = parse_actor(text)
    if reply is None:
        return Resolved(None, "unparsed")
    return judged(_lookup(reply.action, case, catalogue), reply, case, legal, taken)


def judged(
    action_id: int | None, reply: ActorReply, case: CaseView, legal: np.ndarray, taken: Collection[int]
) -> Resolved:
    """A parsed reply and the id that it names (None: nothing of the catalogue); other arguments as in `resolve`."""
    if action_id is None:
        return Resolved(None, "illegal", reply)
    if action_id in taken or (case.bad is not None and action_id == case.bad.action.id):
        return Resolved(action_id, "repeats", reply)
    if not bool(legal[action_id]):
        return Resolved(action_id, "illegal", reply)
    return Resolved(action_id, None, reply)


def _form(action: dict[str, Any]) -> str | None:
    """'candidate', 'substation' or 'line' when the fields of that form are there with the right types, else None."""
    if _integer(action.get("candidate")):
        return "candidate"
    buses = action.get("buses")
    if _integer(action.get("substation")) and isinstance(buses, list) and buses and all(b in (1, 2) for b in buses):
        return "substation"
    if _integer(action.get("line")) and action.get("status") in LINE_STATUS:
        return "line"
    return None


def _lookup(action: dict[str, Any], case: CaseView, catalogue: Catalogue) -> int | None:
    form = _form(action)
    if form == "candidate":
        number = action["candidate"]
        return case.candidates[number].id if 0 <= number < len(case.candidates) else None
    if form == "substation":
        if not 0 <= action["substation"] < case.facts.substations:
            return None
        return catalogue.find(action["substation"], [int(bus) for bus in action["buses"]])
    if not 0 <= action["line"] < case.facts.lines:
        return None
    if action["status"] == "out":
        return catalogue.find_line(action["line"], 0)
    origin, extremity = action["status"].removeprefix("in ").split("-")
    return catalogue.find_line(action["line"], 1, int(origin), int(extremity))


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""
