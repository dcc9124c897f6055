import json

import pytest

from ace_ray.config.errors import ShardError
from ace_ray.grid.domain import GridDomain
from ace_ray.replay.core import ReplayCore
from ace_ray.replay.inspect import show, summary, verify
from ace_ray.replay.pending import RefinementResult
from tests.replay.rows import IDENTITY, chain, chain_states, pending, settings, states

pytestmark = pytest.mark.unit


@pytest.fixture
def folder(tmp_path):
    """A log with an episode, one accepted and one unsalvageable refinement, one pending, and an edit."""
    replay = ReplayCore(tmp_path, settings(), IDENTITY, GridDomain())
    replay.reserve(6)
    replay.store(chain_states(0, 6), chain(0, 6))
    items = [pending(replay.reserve(1), distance=d, parent=5 - d) for d in range(3)]
    replay.push(items)
    first, second, _ = replay.pop("r")
    id = replay.reserve(1)
    row = {"id": id, "state_id": id, "terminated": True, "source": "llm", "parent_id": 5, "catalogue_id": 3}
    prompt = json.dumps([{"role": "user", "content": "what now?"}])
    attempt = {"verdict": "better", "ret": 3.0, "played_ret": 1.0, "catalogue_id": 3, "refiner": "llm", "model": "m"}
    attempt |= {"prompt": prompt, "reply": "split it"}
    state = states([id])
    replay.finish("r", RefinementResult(first, "accepted", True, -2.0, [attempt], [state], [row], 0))
    replay.finish("r", RefinementResult(second, "unsalvageable"))
    replay.edit("e", [{"transition_id": 2, "delta": 0.2}])
    replay.seal()
    return tmp_path


def test_summary_counts_what_was_written(folder):
    found = summary(folder)
    assert found["sources"] == {"rl": 6, "llm": 1} and found["rows"]["state"] == 7 and found["edits"] == 1
    assert (found["refined"], found["pending"]) == (1, 1) and found["mb_per_1000_decisions"] > 0
    assert found["refinement"]["by_distance"]["0"] == {"accepted": 1, "asked": 1, "salvageable": 1}
    assert found["refinement"]["unsalvageable"] == 1


def test_show_tells_refinements_by_distance_and_their_text(folder):
    text = "\n".join(show(folder, last=2))
    assert "pending 1, asked 1, salvageable 1" in text and "what now?" in text and "split it" in text
    assert "better: return 3.00 against 1.00" in text
    assert "what now?" not in "\n".join(show(folder))


def test_a_whole_log_verifies_and_a_torn_one_names_the_shard(folder):
    assert verify(folder)[0]
    victim = next(folder.glob("*-state.arrow"))
    victim.write_bytes(victim.read_bytes()[:-8])
    whole, lines = verify(folder)
    assert not whole and victim.name in lines[0] and any("without their state" in line for line in lines)
    assert victim.exists(), "looking changes nothing"


def test_references_to_what_is_not_there_are_found(folder):
    replay = ReplayCore(folder, settings(), IDENTITY, GridDomain())
    replay.log.append("edit", [{"transition_id": 77, "delta": 0.2}])
    replay.seal()
    whole, lines = verify(folder)
    assert not whole and "1 edits of transitions that are not there, the first: 77" in lines


def test_a_folder_without_a_log_is_a_clear_error(tmp_path):
    with pytest.raises(ShardError, match="no replay log"):
        verify(tmp_path)
