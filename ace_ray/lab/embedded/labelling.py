"""Labelling in several processes: one episode is one file, so work is parallel, resumable and may stop at any time.
Gate and seed decisions are replayed anew in the same processes, an episode at a time, and written at the end."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ace_ray.config.errors import DataError, GridMismatchError
from ace_ray.config.grid import GridSettings
from ace_ray.domain import Snapshot
from ace_ray.finetune.held_out import MODEL_META, other_decisions, read_parquet
from ace_ray.grid.fingerprint import same
from ace_ray.grid.scenarios.scenario import Scenario
from ace_ray.lab.embedded import label_worker
from ace_ray.lab.embedded.decision_files import FILES, Tally, scenario_of, write_decisions
from ace_ray.lab.embedded.label_files import META, read_meta, read_rows, write_rows
from ace_ray.lab.embedded.labels import SPLITS, Labeller, LabelPlan

_COUNTED = ("split", "ids", "snapshot", "pivotal", "salvageable")


def generate(
    out: Path,
    plan: LabelPlan,
    *,
    processes: int,
    minutes: float | None = None,
    episodes: int | None = None,
    states: int | None = None,
    validation_share: float = 0.25,
    only: str | None = None,
    until_enough: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Label episodes until the time or the number of episodes is used up; goes on where an earlier call stopped.

    Args:
        out: label folder; one file an episode.
        plan: what is labelled; a folder keeps the plan it was begun with.
        processes: worker processes, each with two environments (about 600 MB).
        minutes: time budget; episodes under way are finished.
        episodes: number of new episodes.
        states: replayed decisions that the folder holds in the end, those of earlier calls among them.
        validation_share: share of the episodes that is of the validation split.
        only: label this split alone.
        until_enough: stop as well once the folder has enough for gate and seed files, and take each episode from the
            split that lacks more of them instead of by `validation_share`.
        progress: show a bar, with the decisions found for gate (pivotal) and seed file (salvageable).

    Returns:
        Counts and states per hour and process; `pivotal` and `salvageable` are of the whole folder.

    Raises:
        DataError: the folder was begun with another plan, or by a decision engine that acts differently.
    """
    out.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    turns = _Turns(out, validation_share)
    tally = Tally(read_rows(out, "labels"))
    already = 0 if states is None else sum(bool(row["ids"]) for row in read_rows(out, "labels"))
    found = finished = submitted = 0
    with (
        _pool(processes, plan) as pool,
        tqdm(unit="state", disable=not progress, desc="labels", initial=already, total=states) as bar,
    ):
        _begin(out, _meta(pool))
        running: set[Any] = set()
        while True:
            in_time = minutes is None or time.monotonic() - begun < 60 * minutes
            wanted = in_time and not (until_enough and tally.enough) and (states is None or already + found < states)
            while wanted and len(running) < processes and (episodes is None or submitted < episodes):
                split = tally.neediest.split if until_enough else only
                running.add(pool.submit(_label, str(out), *turns.next(split)))
                submitted += 1
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for job in done:
                rows = job.result()
                found, finished = found + len(rows), finished + 1
                tally.add(rows)
                bar.set_postfix(episodes=finished, **tally.text(), refresh=False)
                bar.update(len(rows))
    hours = (time.monotonic() - begun) / 3600
    return {
        "episodes": finished,
        "states": found,
        **tally.text(),
        "hours": round(hours, 3),
        "states_per_process_hour": round(found / hours / processes, 1),
    }


def redescribe(folder: Path, progress: bool = True) -> int:
    """Write cases and prompts of a label folder anew, in the words of today; returns the number of rows.

    For labels that were made before prompts changed. Their replays stay, so they have to be of the present engine.

    Raises:
        DataError: they were replayed with a decision engine that acts differently.
    """
    meta = read_meta(folder)
    labeller = Labeller(LabelPlan.from_json(meta["plan"]))
    if not same(meta.get("behaviour", ()), labeller.meta()["behaviour"]):
        raise DataError(
            f"the labels in {folder} were replayed with a decision engine that acts differently from the present one",
            "label into a new folder: replays of two engines cannot be compared",
        )
    count = 0
    for file in tqdm(sorted(folder.glob("labels-*.parquet")), unit="episode", desc="describe", disable=not progress):
        rows = [labeller.described(row) for row in read_parquet(file)]
        write_rows(file, rows)
        count += len(rows)
    (folder / META).write_text(json.dumps(labeller.meta(), indent=1))
    return count


def replay_decisions(
    model: Path, grid: GridSettings, *, processes: int, progress: bool = True
) -> list[tuple[int, int]]:
    """Replay the gate and seed decisions of a model folder with the present engine, and keep those that still belong.

    A snapshot rebuilds its state whatever engine decides there, so the decisions need not be found again: that takes
    hours. Files, their order and the plan of the meta data stay; nothing is written before the last replay.

    Args:
        model: model folder with both files.
        grid: environment, data and comparison of the replays.
        processes: worker processes, each with two environments (about 600 MB).
        progress: show a bar.

    Returns:
        For each of `FILES`: decisions that it held, and that are left.

    Raises:
        DataError: a file is missing, or fewer than `DecisionFile.least` are left in one.
        GridMismatchError: the decisions are of another grid.
    """
    missing = [name for name in (*(file.name for file in FILES), MODEL_META) if not (model / name).is_file()]
    if missing:
        raise DataError(f"{model} has no {' and no '.join(missing)}", other_decisions(model))
    held = [read_parquet(model / file.name) for file in FILES]
    _require(model, held)
    meta = json.loads((model / MODEL_META).read_text())
    episodes: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in chain.from_iterable(held):
        episodes[scenario_of(row)].append(row)
    anew: dict[str, dict[str, Any]] = {}
    with (
        _pool(processes, LabelPlan.from_json(meta["plan"], grid)) as pool,
        tqdm(unit="decision", disable=not progress, desc="replay", total=sum(map(len, held))) as bar,
    ):
        now = _meta(pool)
        if now["catalogue"] != meta["catalogue"]:
            raise GridMismatchError(
                f"the decisions in {model} belong to another grid than {grid.env}", "replay them under its settings"
            )
        for rows in pool.map(_replay, episodes.values()):
            anew.update((row["key"], row) for row in rows)
            bar.update(len(rows))
    left = [
        [anew[row["key"]] for row in rows if file.takes(anew[row["key"]])]
        for file, rows in zip(FILES, held, strict=True)
    ]
    _require(model, left)
    write_decisions(model, left, now)
    return [(len(before), len(after)) for before, after in zip(held, left, strict=True)]


def _require(model: Path, decisions: Sequence[Sequence[dict[str, Any]]]) -> None:
    """Raises DataError where one of `FILES` would have fewer decisions than it may."""
    for file, rows in zip(FILES, decisions, strict=True):
        if len(rows) < file.least:
            raise DataError(
                f"only {len(rows)} {file.mark} decisions are left in {model / file.name}, {file.least} are needed",
                other_decisions(model),
            )


def _pool(processes: int, plan: LabelPlan) -> ProcessPoolExecutor:
    """Processes with a labeller each."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, mp_context=context, initializer=label_worker.start, initargs=(plan,))


def _meta(pool: ProcessPoolExecutor) -> dict[str, Any]:
    """`Labeller.meta` of a pool, as a file says it."""
    found: dict[str, Any] = json.loads(json.dumps(pool.submit(label_worker.meta).result()))
    return found


def _begin(out: Path, meta: dict[str, Any]) -> None:
    """Writes the meta data of a new folder; a folder that has some goes on under the same ones only."""
    if not (out / META).is_file():
        (out / META).write_text(json.dumps(meta, indent=1))
        return
    before = read_meta(out)
    if before["plan"] != meta["plan"]:
        other = sorted(key for key in meta["plan"] if before["plan"].get(key) != meta["plan"][key])
        raise DataError(
            f"the labels in {out} were begun under another plan ({', '.join(other)})",
            "go on with the stage and settings that they were begun with, or name a new folder",
        )
    if not same(before.get("behaviour", ()), meta["behaviour"]):
        raise DataError(
            f"the labels in {out} were begun with a decision engine that acts differently from the present one",
            "label into a new folder: replays of two engines cannot be compared",
        )


class _Turns:
    """Episodes that have no file yet, in order of each split."""

    def __init__(self, out: Path, validation_share: float) -> None:
        self._out = out
        self._every = round(1 / validation_share) if validation_share > 0 else 0
        self._turn = 0
        self._next = dict.fromkeys(SPLITS, 0)

    def next(self, split: str | None) -> tuple[str, int]:
        """Split and index of the next episode; the splits take turns where None is asked for."""
        while True:
            chosen = split
            if chosen is None:
                chosen = "validation" if self._every and self._turn % self._every == self._every - 1 else "train"
                self._turn += 1
            index = self._next[chosen]
            self._next[chosen] += 1
            name = f"{chosen}-{index:06d}"
            if not (self._out / f"labels-{name}.parquet").is_file() and not (self._out / f"done-{name}").is_file():
                return chosen, index


def _label(out: str, split: str, index: int) -> list[dict[str, Any]]:
    """In a worker process: labels one episode into its file; returns what a `Tally` counts of replayed decisions."""
    rows = label_worker.labeller().episode(split, index)
    folder = Path(out)
    # Written last and even when empty: this file says that the episode is done.
    (folder / f"done-{split}-{index:06d}").touch() if not rows else write_rows(
        folder / f"labels-{split}-{index:06d}.parquet", rows
    )
    return [{key: row[key] for key in _COUNTED} for row in rows if row["ids"]]


def _replay(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In a worker process: replays the decisions of one episode anew."""
    labeller = label_worker.labeller()
    labeller.comparator.hold(Snapshot.from_json(row["snapshot"], Scenario) for row in rows)
    return [labeller.replayed(row) for row in rows]
