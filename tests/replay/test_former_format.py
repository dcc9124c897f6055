"""A log of format 1, as a run wrote it (16 decisions on 36 substations, one chain refined, one waiting, two edits), and
what the version that wrote it read from it."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ace_ray.config.errors import ShardError
from ace_ray.config.run import RunSettings
from ace_ray.finetune.dataset import Said, read_lessons
from ace_ray.grid.domain import GridDomain
from ace_ray.replay import records
from ace_ray.replay.compaction import compact
from ace_ray.replay.core import ReplayCore
from ace_ray.replay.inspect import show, verify
from ace_ray.replay.shards import ShardLog
from tests.replay.rows import chain

pytestmark = pytest.mark.unit

DATA = Path(__file__).parent / "data"
THEN = json.loads((DATA / "shards_v1.json").read_text())
NAMES = {**records.FORMER_NAMES["state"], **records.FORMER_NAMES["transition"], "action": "slot"}  # action: in batches
SETTINGS = RunSettings(
    mixing={"ramp": 1},
    refine={"refiner": "llm", "lookback": 3, "rounds": 2, "queue": 16},
    replay={"capacity": 64, "refined_capacity": 16, "warmup": 4, "shard_rows": 10_000, "shard_seconds": 1e9},
)


@pytest.fixture()
def folder(tmp_path):
    return Path(shutil.copytree(DATA / "shards_v1", tmp_path / "replay"))


def resumed(folder):
    return ReplayCore(folder, SETTINGS, ShardLog(folder).identity, GridDomain())


def digest(array):
    array = np.ascontiguousarray(array)
    return f"{array.dtype} {list(array.shape)} {hashlib.sha256(array.tobytes()).hexdigest()[:16]}"


def now(named):
    """A row or columns under today's names."""
    return {NAMES.get(name, name): value for name, value in named.items()}


def test_every_value_is_read_under_todays_names(folder):
    log = ShardLog(folder)
    states = records.states_of(log.read("state"), log.identity.shape)
    assert {name: digest(column) for name, column in vars(states).items()} == now(THEN["states"])
    wanted = [now(row) for row in THEN["transitions"]]
    assert log.read("transition", list(wanted[0])).select(list(wanted[0])).to_pylist() == wanted
    assert log.read("transition").select(list(wanted[0])).to_pylist() == wanted


def test_a_run_is_resumed_from_it_with_the_same_counts_and_draws(folder):
    core = resumed(folder)
    stats = core.stats()
    del stats["table"]["refined_share"]  # not told then
    assert stats.pop("hard_starts") == 1 and THEN["stats"]["hard_starts"] == 2  # two blackouts, of one scenario
    for name, value in THEN["stats"].items():
        if name == "hard_starts":
            continue
        assert stats[name] == (pytest.approx(value) if name == "table" else value), name
    (batch,) = core.sample(32)
    assert {name: digest(column) for name, column in batch.items()} == now(THEN["batch"])
    assert [item.id for item in core.pop("refiner-0")] == THEN["pending"]


def test_it_is_shown_verified_and_learned_from(folder):
    whole, lines = verify(folder)
    assert whole, lines
    reply = THEN["lessons"][0][3]
    assert f"  reply: {reply}" in list(show(folder, 1))
    (one,) = read_lessons(folder, 100)
    assert isinstance(one, Said)
    prompt = digest(np.frombuffer(one.messages[0]["content"].encode(), np.uint8))
    assert [[one.id, one.weight, prompt, one.reply, [*one.worse]]] == THEN["lessons"]
    best = [[one.id, one.weight, type(one).__name__, one.best.id] for one in read_lessons(folder, 100, "best")]
    assert best == THEN["best"]


def test_new_shards_lie_beside_the_former_ones_and_compaction_renames_what_it_moves(folder):
    core = resumed(folder)
    first = core.reserve(2)
    core.log.append("transition", chain(first, 2, steps=9))
    core.seal()
    log = ShardLog(folder, core.log.identity)
    steps = log.read("transition", ["steps"])["steps"].to_pylist()
    assert steps == [row["k"] for row in THEN["transitions"]] + [9, 9]
    assert json.loads((folder / "manifest.json").read_text())["format"] == records.FORMAT
    assert compact(log, window=1, keep_share=1.1) != 0
    names = {name for path in folder.glob("*-kept.arrow") for name in records.decode(path).column_names}
    assert {"context", "slots", "ids", "steps"} <= names and not names & set(records.FORMER_NAMES["state"])
    assert ShardLog(folder).report.lines() == []


def test_a_format_of_the_future_is_refused(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": records.FORMAT + 1}))
    with pytest.raises(ShardError, match=f"format {records.FORMAT + 1}"):
        ShardLog(folder)
