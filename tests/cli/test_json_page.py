"""docs/json.md names exactly the keys that are written."""

import re
from pathlib import Path

import pytest

from ace_ray.evaluation.compare import compare
from ace_ray.evaluation.result import Episode, Evaluation
from cluster.doctor import Check, to_json

pytestmark = pytest.mark.unit

PAGE = Path(__file__).resolve().parents[2] / "docs" / "json.md"


def documented(section: str) -> list[str]:
    (text,) = [part for part in PAGE.read_text(encoding="utf-8").split("\n## ") if part.startswith(section)]
    return re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)


def evaluation(agent: str, steps: int) -> Evaluation:
    episodes = tuple(Episode(str(i), i, 0, steps, 10, 3, 1.0, 2, 0) for i in range(4))
    times: dict[str, float | None] = {"p50": 1.0, "p99": 2.0}
    return Evaluation(agent, "env", "both", "data", "test", "test:4", False, episodes, times)


def test_evaluate() -> None:
    assert documented("`ace evaluate") == list(evaluation("a", 5).to_json())


def test_episodes() -> None:
    row = next(line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `episodes` | one"))
    assert re.findall(r"`(\w+)`", row)[1:] == list(evaluation("a", 5).to_json()["episodes"][0])


def test_compare() -> None:
    assert documented("`ace compare") == list(compare(evaluation("a", 5), evaluation("b", 6)).to_json())


def test_doctor() -> None:
    assert documented("`ace doctor") == list(to_json([Check("python", "ok", "3.11")]))
