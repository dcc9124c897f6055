"""The stage `replay`: gate and seed decisions get their present outcomes, and those that no longer belong go."""

import json
import shutil
from concurrent.futures import Future
from dataclasses import replace

import pytest

from ace_ray.cli import main
from ace_ray.config.errors import DataError, GridMismatchError
from ace_ray.config.grid import CompareSettings, GridSettings
from ace_ray.domain import Snapshot, pivotal, salvageable
from ace_ray.finetune.held_out import MODEL_META, aged, labelled_case, read_parquet
from ace_ray.grid.domain import GridDomain
from ace_ray.grid.engine import DecisionEngine
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.grid.scenarios.scenario import Scenario
from ace_ray.lab.embedded import labelling
from ace_ray.lab.embedded.card import card
from ace_ray.lab.embedded.decision_files import FILES, GATE, SEEDS
from ace_ray.lab.embedded.label_files import write_rows
from ace_ray.language.prompts import actor_messages
from ace_ray.language.view import BadView
from ace_ray.refine.builder import make_comparator
from llm_service.settings import EMBEDDED

pytestmark = pytest.mark.unit

HORIZON, FIRST = 20, 3  # less than in the shipped files, so that outcomes and compared sets differ and replays are fast
GRID = GridSettings(compare=CompareSettings(horizon=HORIZON, first=FIRST))


@pytest.fixture
def model(tmp_path):
    """A model folder of another engine: two gate decisions, of which one is pivotal within HORIZON, and a seed."""
    for name in ("training.json", "model.safetensors"):
        shutil.copy(EMBEDDED / name, tmp_path)
    gate, seeds = (sorted(read_parquet(EMBEDDED / file.name), key=_cost) for file in FILES)
    splits, shared = next(filter(_splits, gate)), next(row for row in gate if all(_alive(row)))
    write_rows(tmp_path / GATE.name, [_falsified(row) for row in (shared, splits)])
    write_rows(tmp_path / SEEDS.name, [_falsified(next(filter(_splits, seeds)))])
    meta = json.loads((EMBEDDED / MODEL_META).read_text())
    meta["plan"]["seed"] = 5
    (tmp_path / MODEL_META).write_text(json.dumps({**meta, "behaviour": meta["behaviour"][:-1], "context": "old"}))
    return tmp_path


def _cost(row):
    return Snapshot.from_json(row["snapshot"], Scenario).step


def _alive(row):
    return [survived or steps > HORIZON for survived, steps in zip(row["survived"], row["steps"], strict=True)]


def _splits(row):
    nothing, played, *first = _alive(row)[: FIRST + 1]  # more than the compared set never: the played one may be first
    return not played and any(first) and not nothing


def _falsified(row):
    outcomes = {"survived": [not survived for survived in row["survived"]], "steps": [7] * len(row["ids"])}
    return {**row, **outcomes, "case": "old", "prompt": "old", "pivotal": True, "salvageable": True}


def _contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _outcomes(compare, row):
    snapshot = Snapshot.from_json(row["snapshot"], Scenario)
    ids = compare.compared_set(compare.decision(snapshot), json.loads(row["played"])["id"])
    return compare.outcomes(snapshot, ids)


def test_replayed_files_are_those_of_the_present_engine(model, monkeypatch, capsys):
    before = {row["key"]: row for file in FILES for row in read_parquet(model / file.name)}
    shared, splits = read_parquet(model / GATE.name)
    assert "acts differently" in aged(model, GridDomain())
    monkeypatch.setattr(labelling, "FILES", [replace(file, least=1) for file in FILES])
    command = ["llm", "build-embedded", "--out", str(model), "--stage", "replay", "--processes", "1"]
    assert main([*command, f"grid.compare.horizon={HORIZON}", f"grid.compare.first={FIRST}"]) == 0
    assert "1 of 2 decisions" in capsys.readouterr().out
    env = make_env(GRID)
    compare = make_comparator(env, DecisionEngine(env, GRID))
    assert not pivotal(_outcomes(compare, shared))
    gate, seeds = (read_parquet(model / file.name) for file in FILES)
    assert [row["key"] for row in gate] == [splits["key"]] and len(seeds) == 1
    for row in (*gate, *seeds):
        outcomes, old, played = _outcomes(compare, row), before[row["key"]], json.loads(row["played"])["id"]
        assert row["ids"] == list(outcomes)
        assert row["survived"] == [outcome.survived for outcome in outcomes.values()]
        assert row["steps"] == [outcome.steps for outcome in outcomes.values()]
        assert row["salvageable"] == salvageable(outcomes, played)
        same = ("split", "kind", "distance", "snapshot", "pivotal")
        assert [row[key] for key in same] == [old[key] for key in same]
        known = labelled_case(row)
        bad = BadView(known.played, known.outcomes[played])
        assert json.loads(row["prompt"]) == actor_messages(known.case.with_bad(bad.action, bad.outcome))
    meta = json.loads((model / MODEL_META).read_text())
    assert (meta["plan"]["seed"], meta["plan"]["grid"]) == (5, GRID.model_dump(mode="json", exclude={"expert"}))
    assert meta["context"] == compare.context()
    assert aged(model, GridDomain()) is None
    assert (model / "README.md").read_text() == card(model)


class Pool:
    """In place of processes: whatever is replayed is no longer pivotal."""

    catalogue = json.loads((EMBEDDED / MODEL_META).read_text())["catalogue"]

    def __init__(self, *args, **kwargs): ...
    def __enter__(self):
        return self

    def __exit__(self, *error): ...
    def submit(self, function):
        done = Future()
        done.set_result({"catalogue": self.catalogue})
        return done

    def map(self, function, episodes):
        return [[{**row, "pivotal": False} for row in rows] for rows in episodes]


def test_nothing_is_written_where_too_few_decisions_are_left(model, monkeypatch, capsys):
    before = _contents(model)
    assert main(["llm", "build-embedded", "--out", str(model), "--stage", "replay"]) == 2  # 2 of 64, without a replay
    assert f"--out {model} --stage decisions" in capsys.readouterr().err
    monkeypatch.setattr(labelling, "FILES", [replace(file, least=1) for file in FILES])
    monkeypatch.setattr(labelling, "ProcessPoolExecutor", Pool)
    with pytest.raises(DataError, match="(?s)only 0 pivotal decisions .*stage decisions"):
        labelling.replay_decisions(model, GRID, processes=1, progress=False)
    monkeypatch.setattr(Pool, "catalogue", "of another grid")
    with pytest.raises(GridMismatchError, match="another grid"):
        labelling.replay_decisions(model, GRID, processes=1, progress=False)
    assert _contents(model) == before
    (model / SEEDS.name).unlink()
    with pytest.raises(DataError, match=r"no seeds\.parquet"):
        labelling.replay_decisions(model, GRID, processes=1, progress=False)


def test_a_stage_that_reads_labels_says_so(tmp_path, capsys):
    assert main(["llm", "build-embedded", "--out", str(tmp_path), "--stage", "files"]) == 2
    assert "--labels DIR" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
