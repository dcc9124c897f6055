"""The comparison of trained policies: what is trained how and what not again, what table and counts rest on.

Training itself is replaced by runs as it would leave them: a policy, a replay log and the run's record.
"""

import json
from subprocess import CompletedProcess

import pytest

from ace_ray.config.errors import WorkerError
from ace_ray.config.grid import CandidateSettings, GridSettings
from ace_ray.grid.engine import DecisionEngine
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.lab.bench import trained as trained_table
from ace_ray.lab.bench.trained import CRITICS, REFINERS, Varied, compare_trained
from ace_ray.monitoring.progress import EventLog
from tests.agents.made import small_run
from tests.finetune.runs import refinement, write_log

pytestmark = pytest.mark.unit

GRID = GridSettings(candidates=CandidateSettings(slots=16, shortlist=32, memory=0))
SIZES = ["grid.candidates.slots=16", "grid.candidates.shortlist=32", "grid.candidates.memory=0"]
ACCEPTED = {"llm": 3, "search": 2, "random": 1, "off": 0}


class Trainings:
    """In place of `ace train` processes: notes the command and leaves a run behind, unless it is told to fail."""

    def __init__(self, root, engine):
        self.root, self.engine = root, engine
        self.commands = []
        self.fails = None

    def __call__(self, command, check):
        assert command[1:4] == ["-m", "ace_ray", "train"]
        self.commands.append(command[4:])
        given = dict(word.split("=", 1) for word in command if "=" in word)
        resumed = command[-2] == "--resume"
        folder = self.root / (command[-1].rsplit("/", 1)[-1] if resumed else given["name"])
        refiner = folder.name.rsplit("-", 1)[-1]
        if not resumed:
            small_run(folder, self.engine, GRID)
            events = EventLog(folder / "metrics")
            for decisions in (200, 400):
                events.write(decisions, {"survival": decisions / 1000})
            events.close()
            write_log(folder / "replay", [refinement(n) for n in range(1, ACCEPTED[refiner] + 1)])
        status = "failed" if refiner == self.fails else "finished"
        about = {"status": status, "decisions": 400, "updates": 100, "seconds": 120.0}
        (folder / "run.json").write_text(json.dumps(about))
        return CompletedProcess(command, int(status == "failed"))


@pytest.fixture(scope="module")
def engine():
    env = make_env(GRID)
    yield DecisionEngine(env, GRID)
    env.close()


@pytest.fixture
def trainings(tmp_path, engine, monkeypatch):
    monkeypatch.delenv("ACE_RUNS", raising=False)
    found = Trainings(tmp_path, engine)
    monkeypatch.setattr(trained_table.subprocess, "run", found)
    return found


def compared(root, said, varied=REFINERS, **changes):
    overrides = [f"runs_root={root}", "evaluation.processes=1", "refine.rounds=3", *SIZES]
    options = {"decisions": 400, "scenarios": "test:1;steps=200", "prefix": "t", "say": said.append}
    return compare_trained(varied, [], overrides, **(options | changes))


def test_four_refiners_on_equal_terms_and_a_table_of_their_policies(tmp_path, trainings):
    said = []
    table = compared(tmp_path, said)
    asked = [{word for word in command if "=" in word} for command in trainings.commands]
    own = [{f"refine.refiner={refiner}", f"name=t-{refiner}"} for refiner in REFINERS.values]
    assert all(mine <= words for mine, words in zip(own, asked, strict=True))
    (common,) = {frozenset(words - mine) for words, mine in zip(asked, own, strict=True)}
    assert {"budget.decisions=400", "budget.minutes=null", "refine.proposals=3", "refine.rounds=3"} <= common

    assert [one.agent for one in table.evaluations] == ["greedy", *REFINERS.values] and table.reference == "off"
    greedy, *policies = table.evaluations
    assert len({one.episodes for one in policies}) == 1, "one policy, whatever refiner is said to have made it"
    assert policies[0].episodes != greedy.episodes
    assert {one.survival.mean for one in table.comparisons if one.b != "greedy"} == {0.0}
    counts = json.loads((tmp_path / "t-table" / "refinements.json").read_text())
    assert {refiner: counts[refiner]["accepted"] for refiner in REFINERS.values} == ACCEPTED
    assert json.loads((tmp_path / "t-table" / "table.json").read_text())["reference"] == "off"
    curves = (tmp_path / "t-table" / "survival.svg").read_text()
    assert all(f"<!-- {refiner} -->" in curves for refiner in REFINERS.values)
    assert "search: 400 decisions, 100 updates in 2.0 min; refinements asked 2" in said[1]
    assert str(tmp_path / "t-table") in said[-1]


def test_runs_may_end_after_the_same_time_instead(tmp_path, trainings):
    compared(tmp_path, [], Varied("refine.refiner", ("off",)), decisions=None, minutes=7.5, scenarios="test:1;steps=20")
    (command,) = trainings.commands
    assert {"budget.decisions=null", "budget.minutes=7.5"} <= set(command)


def test_a_failed_run_is_named_and_the_next_call_resumes_it_alone(tmp_path, trainings):
    trainings.fails = "search"
    two = Varied("refine.refiner", ("search", "off"))
    with pytest.raises(WorkerError, match="t-search") as failed:
        compared(tmp_path, [], two)
    assert str(tmp_path / "t-search" / "train.log") in failed.value.remedy
    assert len(trainings.commands) == 1, "no other run is begun after a failure"
    trainings.fails = None
    compared(tmp_path, [], two, scenarios="test:1;steps=20")
    _, again, other = trainings.commands
    assert again == ["--resume", str(tmp_path / "t-search")] and "name=t-off" in other
    compared(tmp_path, [], two, scenarios="test:1;steps=20")
    assert len(trainings.commands) == 3, "finished runs are not trained again"


def test_three_critics_on_equal_terms(tmp_path, trainings):
    table = compared(tmp_path, [], CRITICS)
    asked = [{word for word in command if "=" in word} for command in trainings.commands]
    own = [{f"critic.source={source}", f"name=t-{source}"} for source in ("llm", "random", "off")]
    assert all(mine <= words for mine, words in zip(own, asked, strict=True))
    (common,) = {frozenset(words - mine) for words, mine in zip(asked, own, strict=True)}
    assert {"critic.every=1", "budget.decisions=400"} <= common
    assert [one.agent for one in table.evaluations] == ["greedy", "llm", "random", "off"]
