"""The constant JSON schemas of the replies: one grammar for every state and every grid.

Strings are bounded by a `pattern` (printable ASCII without quote and backslash), never by `maxLength`: under that
keyword constrained engines let raw control characters through, and the reply no longer parses. Integers are
enumerated.
"""

from __future__ import annotations

from typing import Any

SUBSTATIONS = 128
LINES = 256
CANDIDATES = 64
ELEMENTS = 64
KEY_STEPS = 32
LEVELS = ("-2K", "-K", "+K", "+2K")
MAX_EDITS = 4
LINE_STATUS = ("out", "in 1-1", "in 1-2", "in 2-1", "in 2-2")
"""Disconnect, or reconnect with the origin and the extremity end on these buses."""


def text_field(length: int) -> dict[str, Any]:
    """A JSON string of at most `length` printable ASCII characters, without quotes and backslashes.

    Repetitions are written in pieces of at most 120: xgrammar 0.2.8 with its compilation cache on (as vLLM runs it)
    fails on a single repetition above 128.
    """
    pieces = [120] * (length // 120) + ([length % 120] if length % 120 else [])
    body = "".join(f"[ !#-\\[\\]-~]{{0,{n}}}" for n in pieces)
    return {"type": "string", "pattern": f"^{body}$"}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_BUS = {"type": "integer", "enum": [1, 2]}
_LINE = {"type": "integer", "enum": list(range(LINES))}

ACTION_SCHEMA: dict[str, Any] = {
    "anyOf": [
        _object({"candidate": {"type": "integer", "enum": list(range(CANDIDATES))}}),
        _object(
            {
                "substation": {"type": "integer", "enum": list(range(SUBSTATIONS))},
                "buses": {"type": "array", "items": _BUS, "minItems": 1, "maxItems": ELEMENTS},
            }
        ),
        _object({"line": _LINE, "status": {"type": "string", "enum": list(LINE_STATUS)}}),
    ]
}

ACTOR_SCHEMA: dict[str, Any] = _object(
    {"analysis": text_field(240), "why_bad": text_field(240), "action": ACTION_SCHEMA}
)
"""Reply of the actor."""

PAPER_SCHEMA: dict[str, Any] = _object(
    {
        "analysis": text_field(240),
        "why_bad": text_field(240),
        "changes": {"type": "array", "items": _object({"line": _LINE, "bus": _BUS}), "minItems": 0, "maxItems": 5},
    }
)
"""Reply of the actor to the paper's prompt."""

CRITIC_SCHEMA: dict[str, Any] = _object(
    {
        "analysis": text_field(240),
        "steps": {
            "type": "array",
            "items": {"type": "integer", "enum": list(range(KEY_STEPS))},
            "minItems": 0,
            "maxItems": MAX_EDITS,
        },
        "changes": {
            "type": "array",
            "items": {"type": "string", "enum": list(LEVELS)},
            "minItems": 0,
            "maxItems": MAX_EDITS,
        },
        "reasons": text_field(240),
    }
)
"""Reply of the critic: two lists of the same length, then why."""
