"""docs/json.md names exactly the keys that are written."""

import re
from pathlib import Path

import pytest

from ace_ray.cluster.doctor import Check, to_json
from ace_ray.config.refine import RefineSettings
from ace_ray.config.run import RunSettings
from ace_ray.evaluation.compare import compare
from ace_ray.evaluation.result import Episode, Evaluation
from ace_ray.lab.exam.result import FIELDS, critic_result, exam_result

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


def _settings() -> RunSettings:
    return RunSettings(refine=RefineSettings(rounds=2))


def test_llm_eval() -> None:
    scores = dict.fromkeys(FIELDS, 0.5) | {f"{name}_{r}": 0.5 for name in ("better", "survival_regret") for r in (1, 2)}
    record = {
        "chronic": "a",
        "episode": "a-1",
        "pivotal": True,
        "model": scores,
        "baselines": {name: scores for name in ("first", "random", "greedy", "search")},
        "without_grammar": {"parsed": 1.0, "legal": 1.0},
        "model_name": "m",
        "adapter_version": 0,
        "prompt_tokens": 7,
        "reply_tokens": 3,
    }
    found = exam_result([record], _settings(), "test")
    assert documented("`ace llm eval --json") == [
        *found,
        *(figure for figure in found["overall"] if figure not in ("better", "tie", "worse")),  # in one row
    ]


def test_llm_eval_critic() -> None:
    record = {"chronic": "a", "episode": "a-1", "model_name": "m", "adapter_version": 0, "shown": 1.0, "parsed": 1.0}
    record |= {"edits": 2, "dropped": 0, "lowered": 1.0, "lowered_at_random": 0.5, "astray": False, "rules": {}}
    assert documented("`ace llm eval-critic") == list(critic_result([record], _settings(), "test"))
