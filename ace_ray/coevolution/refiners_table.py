"""What the language model is worth: the same run with `refine.refiner` llm, search, random and off.

Every run starts from the same seed and settings and ends after the same number of decisions; a search or random
refinement spends as many replays as the model has rounds (`refine.proposals` = `refine.rounds`). The trained policies
then play the same scenarios. Each run is a process of its own, so one that fails leaves the others.
"""

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ace_ray.coevolution.run_folder import ABOUT, read_about, runs_root
from ace_ray.config.errors import WorkerError
from ace_ray.config.load import load_settings
from ace_ray.evaluation.evaluate import evaluate_all
from ace_ray.evaluation.tables import Table, table
from ace_ray.replay.inspect import summary

log = logging.getLogger(__name__)

REFINERS = ("llm", "search", "random", "off")


def compare_refiners(
    profiles: Sequence[Path | str],
    overrides: Sequence[str],
    *,
    decisions: int,
    scenarios: str,
    prefix: str = "refiners",
    refiners: Sequence[str] = REFINERS,
    say: Callable[[str], None] = log.info,
) -> Table:
    """Trains once with each refiner and compares the policies.

    Runs lie under the runs root as `<prefix>-<refiner>`; one that is finished already is not trained again, an
    interrupted one is resumed. Table and counts are written to `<runs_root>/<prefix>-table/`.

    Args:
        profiles, overrides: as for `ace train`.
        decisions: collected by each run.
        scenarios: played by each trained policy.
        prefix: of the names of the runs.
        refiners: which to compare; the last one is what the others are compared with.
        say: gets one line a result.

    Returns:
        The policies on the same scenarios, each against that of the last refiner.

    Raises:
        WorkerError: a training run failed; its log is named.
    """
    rounds = load_settings(profiles, overrides).refine.rounds
    common = [
        *overrides,
        f"refine.proposals={rounds}",
        f"budget.decisions={decisions}",
        "budget.minutes=null",
        "evaluation.enabled=false",
    ]
    settings = load_settings(profiles, common)
    root = runs_root(settings)
    for refiner in refiners:
        _train(root / f"{prefix}-{refiner}", [*map(str, profiles)], [*common, f"refine.refiner={refiner}"])
        say(_counts(root / f"{prefix}-{refiner}", refiner))
    found = evaluate_all(
        ["greedy", *(f"policy:{root / f'{prefix}-{refiner}'}" for refiner in refiners)],
        scenarios,
        settings.grid,
        processes=settings.evaluation.processes,
    )
    names = ["greedy", *refiners]
    result = table([replace(one, agent=name) for one, name in zip(found, names, strict=True)], reference=refiners[-1])
    folder = root / f"{prefix}-table"
    result.save(folder)
    counts = {refiner: summary(root / f"{prefix}-{refiner}" / "replay")["refinement"] for refiner in refiners}
    (folder / "refinements.json").write_text(json.dumps(counts, indent=1) + "\n")
    say(f"written to {folder}")
    return result


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
            f"read {folder / 'train.log'}, mend the cause, and run the comparison again: finished runs are kept",
        )


def _counts(folder: Path, refiner: str) -> str:
    about = read_about(folder)
    refinement = summary(folder / "replay")["refinement"]
    return (
        f"{refiner}: {about['decisions']} decisions, {about['updates']} updates in {about['seconds'] / 60:.1f} min; "
        f"refinements asked {refinement['asked']}, salvageable {refinement['salvageable']}, "
        f"accepted {refinement['accepted']}, rounds {refinement['rounds']}"
    )
