"""The page of all grids, from results that lie in a folder."""

import json

import pytest

from ace_ray.config.errors import DataError
from ace_ray.config.grid import GridSettings
from ace_ray.evaluation.result import load
from ace_ray.lab.bench.grids import page, play_grids

from ..evaluation.made import evaluation

pytestmark = pytest.mark.unit

CASE14 = "l2rpn_case14_sandbox"


def put(folder, env, **steps):
    here = folder / env.replace("/", "_")
    here.mkdir(parents=True)
    about = {"env": env, "substations": 36, "lines": 59, "topology_actions": 66810, "catalogue": "abc"}
    (here / "about.json").write_text(json.dumps(about))
    for agent, survived in steps.items():
        evaluation(agent, survived, env=env).save(here / f"{agent}.json")
    return here


def test_the_page_has_a_row_and_a_table_for_each_grid_in_a_fixed_order(tmp_path):
    here = put(tmp_path, "mixes/x1", greedy=[50, 60, 70, 80], expert=[60, 70, 80, 90])
    only = evaluation("greedy", [10, 10, 10, 10], env="mixes/x1", predicate="overloaded")
    only.save(here / "greedy_overloaded.json")
    put(tmp_path, "l2rpn_neurips_2020_track1", reconnect=[10, 20, 30, 40], greedy=[100, 100, 100, 100])
    screen = {"screen_ms": {"median": 2.5}, "candidates_ms": {"median": 11.0}, "speedup_sweep": 251.4}
    (here / "screen.json").write_text(json.dumps(screen | {"recall": {"states": 20, "8": 0.9, "64": 1.0}}))
    text = page(tmp_path)
    overview = text.split("\n\n")[0].splitlines()
    assert overview[0].endswith("| reconnect, % | greedy, % | greedy (overloaded), % | expert, % |")
    assert overview[2] == ("| l2rpn_neurips_2020_track1 | 36 | 59 | 66,810 | - | - | - | - | 25.0 | 100.0 | - | - |")
    assert overview[3] == "| mixes/x1 | 36 | 59 | 66,810 | 2.5 | 11.0 | 251 | 100 % of 20 | - | 65.0 | 10.0 | 75.0 |"
    assert text.index("## l2rpn_neurips_2020_track1") < text.index("## mixes/x1")
    assert "| expert - greedy | +10.0 |" in text


def test_results_of_other_scenarios_are_not_put_into_one_table(tmp_path):
    put(tmp_path, "somewhere", greedy=[50, 60, 70, 80], reconnect=[50, 60])
    with pytest.raises(DataError, match="same --scenarios"):
        page(tmp_path)
    with pytest.raises(DataError, match="no results"):
        page(tmp_path / "nowhere")


def test_what_is_there_is_not_played_again(tmp_path, monkeypatch):
    said: list[str] = []
    chosen = {"grids": [CASE14], "scenarios": "test:2;steps=4", "processes": 1, "say": said.append}
    play_grids(tmp_path, GridSettings(), agents=["do-nothing"], **chosen)
    first = load(tmp_path / CASE14 / "do-nothing.json")
    assert [e.max_steps for e in first.episodes] == [4, 4] and first.data == "shipped"
    assert f"| {CASE14} | 14 | 20 | 178 |" in (tmp_path / "grids.md").read_text()
    play_grids(tmp_path, GridSettings(), agents=["do-nothing", "reconnect"], **chosen)
    assert said[-1] == f"{CASE14}: 1 agents played, 1 were there"
    assert (tmp_path / CASE14 / "reconnect.json").exists() and load(tmp_path / CASE14 / "do-nothing.json") == first
