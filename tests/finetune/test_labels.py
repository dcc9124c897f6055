"""Labelling: rows say what the replays showed, an episode repeats bit for bit, and an interrupted folder goes on."""

import json

import pytest

from ace_ray.agents.comparator import Comparator
from ace_ray.config.grid import CandidateSettings, CompareSettings, GridSettings
from ace_ray.finetune.embedded import write_decision_files
from ace_ray.finetune.gate import load_gate
from ace_ray.finetune.label_files import labelled_case, pack, read_cases, read_rows, write_rows
from ace_ray.finetune.labels import Labeller, LabelPlan, generate
from ace_ray.finetune.seeds import read_seeds
from ace_ray.grid.environment import make_env
from ace_ray.grid.snapshot import Snapshot
from ace_ray.language.prompts import actor_messages
from ace_ray.language.view import BadView

pytestmark = pytest.mark.unit

GRID = GridSettings(
    compare=CompareSettings(horizon=12, first=3), candidates=CandidateSettings(slots=16, shortlist=32, memory=0)
)
PLAN = LabelPlan(grid=GRID, max_steps=60, before_blackout=1, random=2, bootstrap=2, perturbation=(0.5,))


@pytest.fixture(scope="module")
def labeller():
    return Labeller(PLAN)


@pytest.fixture(scope="module")
def episode(labeller):
    """Index and rows of the first training episode that has a labelled decision."""
    for index in range(6):
        found, _ = labeller.episode("train", index)
        if any(row["ids"] for row in found):
            return index, found
    raise AssertionError("no decision in six episodes")


@pytest.fixture(scope="module")
def rows(episode):
    """The rows of that episode."""
    return episode[1]


def test_a_row_holds_the_fates_that_a_fresh_comparator_finds(labeller, rows):
    row = next(row for row in rows if row["ids"])
    compare = Comparator(make_env(GRID), labeller.engine, GRID)
    snapshot = Snapshot.from_json(row["snapshot"])
    assert snapshot.key() == row["key"]
    for action, survived, steps in zip(row["ids"], row["survived"], row["steps"], strict=True):
        fate = compare.fate(snapshot, action)
        assert (fate.survived, fate.steps) == (survived, steps)
    assert {0, json.loads(row["played"])["id"]} <= set(row["ids"])
    assert len(row["ids"]) <= 2 + GRID.compare.first


def test_the_prompt_can_be_written_again_from_the_row_alone(rows):
    for row in rows:
        known = labelled_case(row)
        case = known.case
        bad = BadView(known.played, known.outcomes.get(known.played.id))
        assert json.loads(row["prompt"]) == actor_messages(case.with_bad(bad.action, bad.outcome))


def test_an_episode_repeats(labeller, episode):
    index, rows = episode
    again, _ = labeller.episode("train", index)
    keep = ("key", "ids", "survived", "steps", "returns", "case", "prompt")
    assert [[r[k] for k in keep] for r in again] == [[r[k] for k in keep] for r in rows]


def test_splits_play_other_scenarios(labeller):
    train, held_out = labeller.scenario("train", 0), labeller.scenario("validation", 0)
    assert train.chronic != held_out.chronic
    assert labeller.scenario("train", 1) != train


def test_a_label_folder_becomes_gate_and_seed_files(labeller, rows, tmp_path):
    row = next(row for row in rows if row["ids"])
    split = {"survived": [i > 0 for i in range(len(row["ids"]))]}
    (tmp_path / "meta.json").write_text(json.dumps(labeller.meta()))
    write_rows(tmp_path / "labels-train-000000.parquet", [{**row, **split, "salvageable": True}])
    held_out = {**row, **split, "split": "validation", "pivotal": True}
    write_rows(tmp_path / "labels-validation-000000.parquet", [held_out])
    assert write_decision_files(tmp_path, tmp_path / "model") == (1, 1)
    (case,) = load_gate(tmp_path / "model", 1)
    assert case.snapshot == row["snapshot"]
    assert len(case.labelled.outcomes) == len(row["ids"])
    (seed,) = read_seeds(GRID, labeller.engine.catalogue.hash, tmp_path / "model")
    assert seed.snapshot.to_json() == row["snapshot"]
    assert seed.played in seed.fates
    packed = pack(tmp_path)
    assert [p.name for p in packed] == ["labels.jsonl.gz"]
    before = read_cases(tmp_path, "train")
    for file in tmp_path.glob("*.parquet"):
        file.unlink()
    assert read_cases(tmp_path, "train") == before


def test_labelling_goes_on_where_it_stopped(tmp_path):
    (tmp_path / "done-train-000000").touch()  # what an earlier call leaves of an episode without decisions
    told = generate(tmp_path, PLAN, processes=1, episodes=1, validation_share=0.0, progress=False)
    assert told["episodes"] == 1
    assert json.loads((tmp_path / "meta.json").read_text())["plan"]["max_steps"] == 60
    second = [f for f in tmp_path.iterdir() if f.name.split(".")[0] in ("labels-train-000001", "done-train-000001")]
    assert len(second) == 1
    assert not (tmp_path / "labels-train-000000.parquet").exists()
    assert all(row["split"] == "train" for row in read_rows(tmp_path, "labels"))
