"""Labelling: rows say what the replays showed, an episode repeats bit for bit, and an interrupted folder goes on."""

import json
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest

from ace_ray.config.errors import DataError
from ace_ray.config.grid import CandidateSettings, CompareSettings, GridSettings
from ace_ray.config.refine import LanguageSettings
from ace_ray.domain import Snapshot
from ace_ray.finetune.held_out import labelled_case, load_gate, read_parquet, read_seeds
from ace_ray.grid.domain import GridDomain
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.grid.scenarios.scenario import Scenario
from ace_ray.lab.embedded import labelling
from ace_ray.lab.embedded.decision_files import FILES, GATE, SEEDS, Tally, write_decision_files
from ace_ray.lab.embedded.label_files import META, pack, read_cases, read_meta, read_rows, write_rows
from ace_ray.lab.embedded.labelling import generate, redescribe
from ace_ray.lab.embedded.labels import Labeller, LabelPlan
from ace_ray.lab.embedded.planted_files import plant_all
from ace_ray.language.prompts import actor_messages
from ace_ray.language.view import BadView
from ace_ray.refine.builder import make_comparator

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
        found = labeller.episode("train", index)
        if any(row["ids"] for row in found):
            return index, found
    raise AssertionError("no decision in six episodes")


@pytest.fixture(scope="module")
def rows(episode):
    """The rows of that episode."""
    return episode[1]


def test_a_row_holds_the_outcomes_that_a_fresh_comparator_finds(labeller, rows):
    row = next(row for row in rows if row["ids"])
    compare = make_comparator(make_env(GRID), labeller.engine)
    snapshot = Snapshot.from_json(row["snapshot"], Scenario)
    assert snapshot.key() == row["key"]
    for action, survived, steps in zip(row["ids"], row["survived"], row["steps"], strict=True):
        outcome = compare.outcome(snapshot, action)
        assert (outcome.survived, outcome.steps) == (survived, steps)
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
    again = labeller.episode("train", index)
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
    (case,) = load_gate(tmp_path / "model", 1, LanguageSettings(danger=True), GridDomain())
    assert case.snapshot.to_json() == row["snapshot"]
    assert len(case.labelled.outcomes) == len(row["ids"])
    (seed,) = read_seeds(GRID, labeller.engine.catalogue.hash, GridDomain(), tmp_path / "model")
    assert seed.snapshot.to_json() == row["snapshot"]
    assert seed.played in seed.outcomes
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


def test_a_folder_goes_on_under_its_own_plan_and_engine_only(labeller, tmp_path):
    meta = json.loads(json.dumps(labeller.meta()))
    labelling._begin(tmp_path, meta)
    labelling._begin(tmp_path, meta)
    other = {**meta, "plan": {**meta["plan"], "seed": 5}}
    with pytest.raises(DataError, match=r"another plan \(seed\)"):
        labelling._begin(tmp_path, other)
    state = {**meta["behaviour"][0], "kind": "calm"}
    with pytest.raises(DataError, match="acts differently"):
        labelling._begin(tmp_path, {**meta, "behaviour": [state, *meta["behaviour"][1:]]})
    assert json.loads((tmp_path / "meta.json").read_text()) == meta


def _label_row(scenario, split, pivotal=False, salvageable=False):
    snapshot = json.dumps({"scenario": {"chronic": scenario}})
    return {"split": split, "ids": [0, 1], "snapshot": snapshot, "pivotal": pivotal, "salvageable": salvageable}


def test_the_tally_counts_what_the_files_would_hold():
    tally = Tally()
    assert tally.neediest in FILES
    rows = [_label_row(f"w{i}", "validation", pivotal=True) for i in range(GATE.enough - 1)]
    rows += [_label_row("one", "train", salvageable=True) for _ in range(10)]  # one scenario fills no file
    rows += [_label_row("w0", "train", pivotal=True), _label_row("w0", "validation", salvageable=True)]
    rows += [{**_label_row("w1", "validation", pivotal=True), "ids": []}]
    tally.add(rows)
    assert (tally.count(GATE), tally.count(SEEDS)) == (GATE.enough - 1, SEEDS.of_scenario)
    assert [len(file.choose(rows)) for file in FILES] == [tally.count(file) for file in FILES]
    assert tally.neediest is SEEDS and not tally.enough
    tally.add(_label_row(f"t{i}", "train", salvageable=True) for i in range(SEEDS.enough))
    assert tally.neediest is GATE and not tally.enough
    tally.add([_label_row("w0", "validation", pivotal=True)])
    assert tally.enough
    assert tally.text() == {
        "pivotal": f"{GATE.enough}/{GATE.enough}",
        "salvageable": f"{SEEDS.enough + 2}/{SEEDS.enough}",
    }


def test_the_files_take_scenarios_in_turn():
    rows = [_label_row(name, "train", salvageable=True) for name in ("a", "a", "a", "b", "c")]
    chosen = [json.loads(row["snapshot"])["scenario"]["chronic"] for row in SEEDS.choose(rows)]
    assert chosen == ["a", "b", "c", "a"]


def test_files_with_too_few_decisions_are_not_written(tmp_path):
    with pytest.raises(DataError, match="0 pivotal validation decisions and 0 salvageable"):
        write_decision_files(tmp_path, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_labelling_takes_the_split_that_lacks_more_and_stops_at_enough(tmp_path, monkeypatch):
    played = []

    class Pool:  # in place of processes: an episode of the validation split has one pivotal decision, and so on
        def __init__(self, *args, **kwargs): ...
        def __enter__(self):
            return self

        def __exit__(self, *error): ...
        def submit(self, function, *args):
            done = Future()
            if args:
                _, split, index = args
                played.append(split)
                marks = {"pivotal": True} if split == "validation" else {"salvageable": True}
                done.set_result([_label_row(f"{split}{index}", split, **marks)])
            else:
                done.set_result({"plan": {}, "behaviour": []})
            return done

    monkeypatch.setattr(labelling, "ProcessPoolExecutor", Pool)
    told = labelling.generate(tmp_path, PLAN, processes=1, until_enough=True, progress=False)
    assert (played.count("validation"), played.count("train")) == (GATE.enough, SEEDS.enough)
    assert set(played[-3:]) == {"train", "validation"}  # both grow together
    assert told["pivotal"] == "96/96"


def test_planting_leaves_a_file_for_each_label_file_and_the_prompt_of_today(rows, labeller, tmp_path):
    meta = labeller.meta()
    (tmp_path / "meta.json").write_text(json.dumps({**meta, "critic_system": "as it was once"}))
    doomed = [{**row, "survived": [False] * len(row["ids"])} for row in rows]
    write_rows(tmp_path / "labels-train-000004.parquet", doomed)
    write_rows(tmp_path / "labels-train-000005.parquet", rows)
    write_rows(tmp_path / "planted-train-000005.parquet", [{"split": "train", "episode": "of an earlier call"}])
    assert plant_all(tmp_path, GRID, processes=1, progress=False) == 1
    assert read_parquet(tmp_path / "planted-train-000004.parquet") == []
    assert read_meta(tmp_path) == json.loads(json.dumps(meta))


def test_nothing_is_planted_in_labels_of_another_engine(labeller, tmp_path):
    aged = {**labeller.meta(), "behaviour": []}
    (tmp_path / "meta.json").write_text(json.dumps(aged))
    with pytest.raises(DataError, match="acts differently"):
        plant_all(tmp_path, GRID, processes=1, progress=False)


def test_old_texts_are_written_anew_and_replays_stay(labeller, rows, tmp_path):
    old = [{**row, "prompt": "old words", "case": _without_danger(row["case"])} for row in rows]
    write_rows(tmp_path / "labels-train-000000.parquet", old)
    (tmp_path / META).write_text(json.dumps(labeller.meta()))
    assert redescribe(tmp_path, progress=False) == len(rows)
    new = {row["key"]: row for row in read_rows(tmp_path, "labels")}
    for row in (row for row in rows if row["ids"]):
        assert {k: v for k, v in new[row["key"]].items() if k != "prompt"} == {
            k: v for k, v in row.items() if k != "prompt"
        }
        assert "danger" in new[row["key"]]["prompt"]


def test_texts_of_another_engines_replays_are_not_written_anew(labeller, rows, tmp_path):
    write_rows(tmp_path / "labels-train-000000.parquet", rows)
    (tmp_path / META).write_text(json.dumps({**labeller.meta(), "behaviour": []}))
    with pytest.raises(DataError, match="acts differently"):
        redescribe(tmp_path, progress=False)


def test_a_replayed_row_is_the_one_that_labelling_made(labeller, rows):
    row = next(row for row in rows if row["ids"])
    old = {**row, "ids": [0], "survived": [False], "prompt": "old words", "case": "", "tie": 0.0, "pivotal": None}
    assert {**labeller.replayed(old), "seconds": row["seconds"]} == row


def test_an_action_that_lost_its_slot_is_replayed_and_shown_with_its_effect(labeller, rows):
    row = next(row for row in rows if row["ids"])
    snapshot = Snapshot.from_json(row["snapshot"], Scenario)
    decision, catalogue = labeller.comparator.decision(snapshot), labeller.engine.catalogue
    legal = catalogue.legal(labeller.comparator.observation(snapshot), np.arange(catalogue.size))
    lost = next(int(i) for i in np.flatnonzero(legal) if i not in decision.ids)
    new = labeller.replayed({**row, "played": json.dumps({"id": lost})})
    assert new["ids"][:2] == [0, lost]
    assert set(row["ids"][2:]) <= set(new["ids"])
    assert json.loads(new["played"])["percent"] > 0


def _without_danger(case: str) -> str:
    view = json.loads(case)
    for candidate in view["candidates"]:
        del candidate["danger"]
    return json.dumps(view)


def test_labels_go_on_whatever_the_settings_of_the_expert(labeller, rows, tmp_path):
    other = replace(PLAN, grid=GRID.model_copy(update={"expert": GRID.expert.model_copy(update={"width": 9})}))
    assert other.to_json() == PLAN.to_json()
    assert replace(PLAN, grid=GridSettings()).to_json() != PLAN.to_json()
    meta = json.loads(json.dumps(labeller.meta()))
    meta["plan"]["grid"]["expert"] = {"width": 3}
    (tmp_path / META).write_text(json.dumps(meta))
    labelling._begin(tmp_path, json.loads(json.dumps(labeller.meta())))
