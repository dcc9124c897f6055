import json
import re
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ace_ray.cli import main
from ace_ray.config.errors import DataError, GridMismatchError
from ace_ray.evaluation.compare import compare, named_apart
from ace_ray.evaluation.result import Evaluation, load, percentiles
from ace_ray.evaluation.rows import SCHEMA, write_parquet
from ace_ray.evaluation.tables import table
from ace_ray.monitoring.statistics import OVER_SEEDS

from .made import evaluation

pytestmark = pytest.mark.unit

ISSUE_KEYS = ["agent", "env", "predicate", "survival", "reward", "full_episodes", "episodes", "decision_ms"]
ISSUE_KEYS.append("illegal_actions")
EPISODE_KEYS = ["chronic", "env_seed", "start_step", "steps", "max_steps", "decisions", "reward"]
ROOT = Path(__file__).resolve().parents[2]


def test_json_has_the_documented_keys_and_reads_back(tmp_path):
    one = evaluation("greedy", [100, 50, 20, 80])
    one.save(tmp_path / "a" / "greedy.json")
    row = json.loads((tmp_path / "a" / "greedy.json").read_text())
    assert list(row)[: len(ISSUE_KEYS)] == ISSUE_KEYS
    assert list(row["survival"]) == ["mean", "ci95"] and list(row["reward"]) == ["mean"]
    assert [list(episode)[: len(EPISODE_KEYS)] for episode in row["episodes"]] == [EPISODE_KEYS] * 4
    assert list(row["decision_ms"]) == ["p50", "p99"]
    assert row["survival"]["mean"] == pytest.approx(0.625) and row["full_episodes"] == 1
    assert load(tmp_path / "a" / "greedy.json") == one


def test_decision_times_are_milliseconds_and_none_without_decisions():
    assert percentiles([0.001, 0.002, 0.003]) == {"p50": pytest.approx(2.0), "p99": pytest.approx(2.98)}
    assert percentiles([]) == {"p50": None, "p99": None}


def test_differences_are_b_minus_a_over_pairs_whatever_the_order():
    a = evaluation("a", [10, 20, 30, 100, 50, 60, 70, 80])
    b = evaluation("b", [20, 30, 30, 90, 60, 70, 80, 90])
    found = compare(a, replace(b, episodes=b.episodes[::-1]))
    assert found.survival.mean == pytest.approx(0.0625)
    assert (found.better, found.equal, found.worse) == (6, 1, 1)
    assert found.full_episodes == -1
    assert found.survival.low <= 0.0625 <= found.survival.high
    assert compare(b, a).survival.mean == pytest.approx(-0.0625)


def test_pairing_narrows_the_interval():
    """Scenarios differ by 90 points, agents by 5 on each of them: unpaired, nothing could be said."""
    a = evaluation("a", [5, 95, 50, 20, 70, 30, 90, 10])
    b = evaluation("b", [10, 100, 55, 25, 75, 35, 95, 15])
    paired = compare(a, b).survival
    assert paired.low == pytest.approx(0.05) and paired.high == pytest.approx(0.05)
    assert a.survival.high > b.survival.low


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"env": "l2rpn_wcci_2022_dev"}, DataError, "environment"),
        ({"data": "shipped"}, DataError, "--data"),
        ({"catalogue": "other"}, GridMismatchError, "catalogue"),
        ({"episodes": evaluation("b", [1, 2, 3, 4, 5]).episodes}, DataError, "one evaluation only"),
        ({"episodes": evaluation("b", [1, 2, 3]).episodes}, DataError, "one evaluation only"),
        ({"episodes": evaluation("b", [1, 2, 3, 4]).episodes[:1] * 4}, DataError, "twice"),
    ],
)
def test_what_is_not_paired_is_refused(change, error, words):
    a, b = evaluation("a", [1, 2, 3, 4]), evaluation("b", [1, 2, 3, 4])
    with pytest.raises(error, match=words):
        compare(a, replace(b, **change))


def test_other_lengths_of_one_scenario_are_no_pair():
    a, b = evaluation("a", [1, 2, 3, 4]), evaluation("b", [1, 2, 3, 4])
    shorter = tuple(replace(episode, max_steps=50) for episode in b.episodes)
    with pytest.raises(DataError, match="same --scenarios"):
        compare(a, replace(b, episodes=shorter))


def test_a_varied_scenario_and_the_plain_one_are_no_pair():
    a, b = evaluation("a", [1, 2, 3, 4]), evaluation("b", [1, 2, 3, 4])
    varied = tuple(replace(episode, perturbation=0.05) for episode in b.episodes)
    with pytest.raises(DataError, match="perturbation"):
        compare(a, replace(b, episodes=varied))


def test_a_file_that_is_no_evaluation_is_named(tmp_path):
    (tmp_path / "x.json").write_text('{"agent": "greedy"}')
    with pytest.raises(DataError, match="x.json"):
        load(tmp_path / "x.json")
    with pytest.raises(DataError, match="does not exist"):
        load(tmp_path / "y.json")


def spoiled(**changes):
    row = evaluation("greedy", [50, 60]).to_json() | changes
    return {key: value for key, value in row.items() if value != "left out"}


def first_episode(**changes):
    one, *others = evaluation("greedy", [50, 60]).to_json()["episodes"]
    return spoiled(episodes=[one | changes, *others])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([spoiled()], "it is not a JSON object"),
        (None, "it is not a JSON object"),
        ({"agents": 3}, "is not the result of an evaluation"),
        (spoiled(env="left out"), "env"),
        (spoiled(env=3), "env: Input should be a valid string"),
        (spoiled(in_sample="no"), "in_sample"),
        (spoiled(versions=[1]), "versions"),
        (spoiled(episodes=[]), "episodes is empty"),
        (spoiled(episodes=["x"]), r"episodes\.0"),
        (first_episode(steps="50"), r"episodes\.0\.steps: Input should be a valid integer"),
        (first_episode(steps=True), r"episodes\.0\.steps"),
        (first_episode(reward=None), r"episodes\.0\.reward: Input should be a valid number"),
        (first_episode(reward=float("nan")), r"episodes\.0\.reward: Input should be a finite number"),
        (first_episode(steps=121), "steps is 121, and must be from 0 to max_steps, 100"),
        (first_episode(steps=0, max_steps=0), "max_steps"),
        (spoiled(alarms=3), "newer version: this one does not know its field 'alarms'"),
        (first_episode(alarm_score=1), "newer version: this one does not know its field 'alarm_score'"),
        (first_episode(alarm_score=1, steps=None), r"episodes\.0\.steps"),
    ],
)
def test_what_cannot_be_compared_is_one_message(tmp_path, capsys, content, words):
    evaluation("greedy", [50, 60]).save(tmp_path / "a.json")
    (tmp_path / "b.json").write_text(json.dumps(content))
    assert main(["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 2
    told = capsys.readouterr().err
    assert "b.json" in told and "remedy:" in told and re.search(words, told), told


def test_other_settings_and_versions_are_told_in_a_line():
    settings = {"reward": {"offset": 0.9}, "rules": {"revert_every": 1}}
    a = evaluation("a", [50, 60], settings=settings, versions={"grid2op": "1.12.1", "numpy": "1"})
    changed = {"reward": {"offset": 0.5}, "rules": {"revert_every": 1}}
    b = evaluation("b", [50, 60], settings=changed, versions={"grid2op": "1.10.0", "numpy": "1", "torch": "2"})
    (note,) = [note for note in table([a, b], reference="a").notes() if "different settings" in note]
    assert note.endswith("reward.offset 0.9 and 0.5, grid2op 1.12.1 and 1.10.0, torch unknown and 2.")
    assert not any("different" in note for note in table([a, replace(a, agent="b")], reference="a").notes())


def test_files_of_one_name_are_told_apart_and_one_given_twice_is_refused(tmp_path, capsys):
    paths = [str(tmp_path / folder / "greedy.json") for folder in ("x", "y")]
    for path, steps in zip(paths, ([50, 60], [40, 60]), strict=True):
        evaluation("greedy", steps).save(path)
    assert main(["compare", *paths]) == 0
    assert f"greedy ({paths[1]}) - greedy ({paths[0]})" in capsys.readouterr().out
    assert main(["compare", paths[0], paths[0]]) == 2
    assert "is given twice" in capsys.readouterr().err
    assert main(["compare", *paths, "--json", paths[1]]) == 2
    assert load(paths[1]).episodes[0].steps == 40


def test_two_results_of_one_agent_are_told_apart_by_their_files():
    both, overloaded = evaluation("greedy", [50, 60]), evaluation("greedy", [40, 60], predicate="overloaded")
    named = named_apart([both, overloaded, evaluation("reconnect", [10, 20])], ["a", "b", "c"])
    assert [one.agent for one in named] == ["greedy (a)", "greedy (b)", "reconnect"]
    found = table(named, reference="greedy (a)")
    assert [one.b for one in found.comparisons] == ["greedy (b)", "reconnect"]


def test_any_number_of_results_is_compared_with_the_first(tmp_path, capsys):
    steps = {"a": [10, 20, 30, 40], "b": [20, 30, 40, 50], "c": [10, 20, 30, 40]}
    paths = [str(tmp_path / f"{name}.json") for name in steps]
    for path, (name, values) in zip(paths, steps.items(), strict=True):
        evaluation(name, values).save(path)
    assert main(["compare", *paths, "--markdown", "--json", str(tmp_path / "all.json")]) == 0
    told = capsys.readouterr().out
    assert "| b - a | +10.0 |" in told and "| c - a | +0.0 |" in told and "shows no difference" in told
    found = json.loads((tmp_path / "all.json").read_text())
    assert found["reference"] == "a" and [one["b"] for one in found["comparisons"]] == ["b", "c"]
    assert main(["compare", *paths[:2], "--json", str(tmp_path / "two.json")]) == 0
    assert json.loads((tmp_path / "two.json").read_text()) == found["comparisons"][0]
    evaluation("d", [1, 2, 3]).save(tmp_path / "d.json")
    assert main(["compare", *paths, str(tmp_path / "d.json")]) == 2
    assert "same --scenarios" in capsys.readouterr().err
    assert main(["compare", paths[0]]) == 2


def test_episodes_are_rows_of_a_parquet_file_as_documented(tmp_path):
    scored = evaluation("greedy", [100, 50])
    scored = replace(scored, episodes=tuple(replace(e, score_2020=1.5, score_2022=2.5) for e in scored.episodes))
    write_parquet([scored, evaluation("reconnect", [30, 40])], tmp_path / "new" / "x.parquet")
    found = pq.read_table(tmp_path / "new" / "x.parquet")
    assert found.schema.equals(SCHEMA)
    rows = found.to_pylist()
    assert [row["agent"] for row in rows] == ["greedy", "greedy", "reconnect", "reconnect"]
    assert (rows[0]["survival"], rows[0]["full"], rows[1]["full"]) == (1.0, True, False)
    assert (rows[1]["score_2022"], rows[2]["score_2022"]) == (2.5, None)
    assert rows[3] | {"chronic": "week_1", "env_seed": 501, "steps": 40, "actions": 8} == rows[3]
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \| `", page, flags=re.MULTILINE) == SCHEMA.names


def test_scores_are_means_with_intervals_and_their_quirk_is_told():
    plain = evaluation("greedy", [100, 50, 20, 30])
    episodes = tuple(replace(e, score_2020=float(e.steps), score_2022=0.0) for e in plain.episodes)
    scored = replace(plain, agent="scored", episodes=episodes)
    assert plain.scores is None and plain.to_json()["scores"] is None
    assert scored.to_json()["scores"]["score_2020"]["mean"] == pytest.approx(50.0)
    assert Evaluation.from_json(scored.to_json()) == scored
    text = table([plain, scored]).text()
    assert "score 2022" in text and "50.0" in text and "losses as 0" in text
    assert "score" not in table([plain]).text()


def test_table_says_where_an_interval_contains_zero(tmp_path):
    rows = [
        evaluation("do-nothing", [5, 10, 15, 20], decision_ms=percentiles([])),
        evaluation("greedy", [80, 90, 100, 70]),
        evaluation("policy:run@0", [80, 90, 100, 70]),
        evaluation("policy:run", [90, 85, 100, 70]),
    ]
    found = table(rows, pairs=[("policy:run@0", "policy:run")])
    text, markdown = found.text(), found.markdown()
    for part in (text, markdown):
        assert "policy:run - policy:run@0" in part and "policy:run@0 - greedy" in part
        assert "contains 0" in part and "shows no difference" in part
    nothing = next(c for c in found.comparisons if c.b == "do-nothing")
    assert nothing.survival.contains_zero is False
    assert not any(note.startswith("do-nothing - greedy") for note in found.notes())
    found.save(tmp_path)
    saved = json.loads((tmp_path / "table.json").read_text())
    assert [row["agent"] for row in saved["agents"]] == [row.agent for row in rows]
    assert saved["comparisons"][1]["survival"]["difference"] == 0.0
    assert (tmp_path / "table.md").read_text() == markdown


def test_table_labels_in_sample_and_few_chronics():
    rows = [evaluation(name, [50, 60, 70, 80], chronics=2, in_sample=True) for name in ("greedy", "x")]
    found = table(rows)
    assert any("in-sample" in note for note in found.notes())
    assert any(OVER_SEEDS in note for note in found.notes())
