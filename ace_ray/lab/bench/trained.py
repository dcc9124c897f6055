"""What refinement, or the critic, is worth: the same run with each value of one setting.

Every run starts from the same seed and settings and ends after the same number of decisions, or after the same time, in
which whoever asks less collects more; a search or random refinement spends as many replays as the model has rounds
(`refine.proposals` = `refine.rounds`). The trained policies then play the same scenarios. Each run is a process of its
own, so one that fails leaves the others.
"""

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ace_ray.agents.registry import SavedPolicy
from ace_ray.coevolution.run_folder import read_about
from ace_ray.config.errors import WorkerError
from ace_ray.config.load import load_settings
from ace_ray.config.outputs import writable_folder
from ace_ray.config.paths import ABOUT, runs_root
from ace_ray.evaluation.charts import curves
from ace_ray.evaluation.evaluate import evaluate_all
from ace_ray.evaluation.report import read_events
from ace_ray.evaluation.tables import Table, table
from ace_ray.policy import checkpoint
from ace_ray.replay.inspect import summary

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Varied:
    """A setting and the values that are compared; the last one is what the others are compared with.

    Attributes:
        always: overrides of every run, before those that are given.
    """

    setting: str
    values: tuple[str, ...]
    always: tuple[str, ...] = ()


REFINERS = Varied("refine.refiner", ("llm", "search", "random", "off"))
CRITICS = Varied("critic.source", ("llm", "random", "off"), ("critic.every=1",))


def compare_trained(
    varied: Varied,
    profiles: Sequence[Path | str],
    overrides: Sequence[str],
    *,
    decisions: int | None,
    minutes: float | None = None,
    scenarios: str,
    prefix: str,
    say: Callable[[str], None] = log.info,
) -> Table:
    """Trains once with each value and compares the policies.

    Runs lie under the runs root as `<prefix>-<value>`; one that is finished already is not trained again, an
    interrupted one is resumed. Table, counts and learning curves (survival in training) are written to
    `<runs_root>/<prefix>-table/`.

    Args:
        varied: the setting, `REFINERS` or `CRITICS`.
        profiles, overrides: as for `ace train`.
        decisions: collected by each run; None: as many as it gets done in `minutes`.
        minutes: of training, for each run; None: as long as the decisions take.
        scenarios: played by each trained policy.
        prefix: of the names of the runs.
        say: gets one line a result.

    Returns:
        The policies on the same scenarios, each against that of the last value.

    Raises:
        WorkerError: a training run failed; its log is named.
    """
    rounds = load_settings(profiles, overrides).refine.rounds
    common = [
        *varied.always,
        *overrides,
        f"refine.proposals={rounds}",
        f"budget.decisions={'null' if decisions is None else decisions}",
        f"budget.minutes={'null' if minutes is None else minutes}",
        "evaluation.enabled=false",
    ]
    settings = load_settings(profiles, common)
    root = runs_root(settings)
    folder = writable_folder(root / f"{prefix}-table")
    runs = {value: root / f"{prefix}-{value}" for value in varied.values}
    for value, run in runs.items():
        _train(run, [*map(str, profiles)], [*common, f"{varied.setting}={value}"])
        say(_counts(run, value))
    found = evaluate_all(
        ["greedy", *(SavedPolicy(checkpoint.find(run), value) for value, run in runs.items())],
        scenarios,
        settings.grid,
        processes=settings.evaluation.processes,
    )
    result = table(found, reference=varied.values[-1])
    say(result.text())
    result.save(folder)
    counts = {value: _refinement(run) for value, run in runs.items()}
    (folder / "refinements.json").write_text(json.dumps(counts, indent=1) + "\n")
    learned = [(value, read_events(run / "metrics").get("survival", [])) for value, run in runs.items()]
    drawn = [line for line in learned if line[1]]
    if drawn:
        (folder / "survival.svg").write_text(curves(f"survival in training, by {varied.setting}", "decisions", drawn))
    say(f"written to {folder}")
    return result


def _refinement(run: Path) -> dict[str, object]:
    found = summary(run / "replay")
    return {**found["refinement"], "edits": found["edits"]}


def _train(folder: Path, profiles: Sequence[str], overrides: Sequence[str]) -> None:
    command = [sys.executable, "-m", "ace_ray", "train"]
    if (folder / ABOUT).is_file():
        if read_about(folder).get("status") == "finished":
            return
        command += ["--resume", str(folder)]
    else:
        for profile in profiles:
            command += ["--config", profile]
        command += [*overrides, f"name={folder.name}"]
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise WorkerError(
            f"training of {folder.name} ended with {done.returncode}",
            f"read {folder / 'train.log'}, fix the cause, and repeat the command: finished runs are kept",
        )


def _counts(folder: Path, value: str) -> str:
    about, found = read_about(folder), summary(folder / "replay")
    refinement = found["refinement"]
    return (
        f"{value}: {about['decisions']} decisions, {about['updates']} updates in {about['seconds'] / 60:.1f} min; "
        f"refinements asked {refinement['asked']}, salvageable {refinement['salvageable']}, "
        f"accepted {refinement['accepted']}, rounds {refinement['rounds']}; edits by the critic {found['edits']}"
    )
