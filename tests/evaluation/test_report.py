import json
import shutil
from pathlib import Path

import pytest
import yaml

from ace_ray.coevolution.run_folder import read_about
from ace_ray.config.errors import RunFolderError
from ace_ray.evaluation.report import read_events, write_report
from ace_ray.evaluation.tables import table
from ace_ray.replay.shards import LogIdentity, ShardLog
from ace_ray.schema import StateShape

from .made import evaluation

pytestmark = pytest.mark.unit


def refinement(id: int, status: str, distance: int, rounds: int = 0, **more: object) -> dict:
    return {"id": id, "status": status, "distance": distance, "reason": "lookback", "rounds": rounds} | more


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "made"
    for part in ("metrics", "adapters", "evaluation"):
        (folder / part).mkdir(parents=True)
    about = {"name": "made <by hand>", "env": "l2rpn_neurips_2020_track1", "refiner": "search", "status": "finished"}
    (folder / "run.json").write_text(json.dumps(about | {"decisions": 40, "updates": 30, "seconds": 90, "starts": 2}))
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed": 0}))
    rows = [evaluation("greedy", [80, 90, 100, 70]), evaluation("policy@30", [90, 85, 100, 70])]
    table(rows).save(folder / "evaluation")
    log = ShardLog(folder / "replay", LogIdentity("l2rpn_neurips_2020_track1", "abc", StateShape(4, 3, 2)))
    log.append(
        "refinement",
        [
            refinement(1, "accepted", 2, 1, salvageable=True, verdict="better"),
            refinement(2, "unsalvageable", 0),
            refinement(3, "round", -1, round=1, verdict="worse"),
        ],
    )
    log.seal(4)
    record = {
        "role": "actor",
        "version": 1,
        "against": "base",
        "accepted": False,
        "published": False,
        "problem": "",
        "gate": {
            "present_regret": 0.1,
            "new_regret": 0.3,
            "difference": 0.2,
            "standard_error": 0.05,
            "states": 64,
        },
        "data": {"refinements": 100},
        "seconds": 12.0,
    }
    (folder / "adapters" / "finetune-001.json").write_text(json.dumps(record))
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "metrics"))
    for step, value in ((10, 0.5), (20, float("nan")), (30, 0.7)):
        writer.add_scalar("survival", value, step)
        writer.add_scalar("q_loss", 1.0, step)
    writer.close()
    return folder


def test_one_page_holds_tables_curves_refinements_and_fine_tuning(run):
    path = write_report(run, read_about(run))
    page = path.read_text()
    assert path == run / "report.html"
    for words in (
        "made &lt;by hand&gt;",
        "policy@30 - greedy",
        "contains 0",
        "decisions before the blackout",
        "<tr><td>2<td>1<td>1<td>1",  # distance 2: asked, salvageable, accepted
        "actor-v1",
        "0.100 → 0.300",
        "refused",
        "week_3",
        "Survival of training episodes",
    ):
        assert words in page, words
    assert page.count("<svg") == 4  # two of the evaluation, survival, loss
    for outside in ("<script", "<link", "src=", "url(http"):
        assert outside not in page


def test_events_are_read_in_order_without_the_gaps(run):
    assert read_events(run / "metrics")["survival"] == [(10.0, 0.5), (30.0, pytest.approx(0.7))]


def test_a_run_that_has_only_begun_says_what_is_missing(run, tmp_path):
    shutil.copyfile(run / "run.json", tmp_path / "run.json")
    page = write_report(tmp_path, read_about(tmp_path)).read_text()
    for words in ("no evaluation yet", "no metrics yet", "no replay log yet", "none in this run"):
        assert words in page


def test_a_run_whose_driver_is_gone_is_not_called_running(run, tmp_path):
    about = json.loads((run / "run.json").read_text()) | {"status": "running"}
    (tmp_path / "run.json").write_text(json.dumps(about))
    page = write_report(tmp_path, read_about(tmp_path)).read_text()
    assert "died" in page and "running" not in page


@pytest.mark.parametrize("text", ["{}", "[]", "7", '{"agents": [{}], "comparisons": []}'])
def test_a_damaged_table_is_named(run, tmp_path, text):
    shutil.copyfile(run / "run.json", tmp_path / "run.json")
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "table.json").write_text(text)
    with pytest.raises(RunFolderError, match="table.json"):
        write_report(tmp_path, read_about(tmp_path))
