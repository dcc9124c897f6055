"""Planted episodes for the critic's training, beside the labels that they come from: one file for each label file, so
work is parallel, resumable and may stop at any time."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
import zlib
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ace_ray.config.errors import DataError
from ace_ray.config.grid import GridSettings
from ace_ray.config.refine import CriticSettings
from ace_ray.finetune.held_out import read_parquet
from ace_ray.grid.fingerprint import same
from ace_ray.lab.embedded import label_worker
from ace_ray.lab.embedded.label_files import META, read_meta, write_rows
from ace_ray.lab.embedded.labels import LabelPlan
from ace_ray.lab.embedded.planting import training_episodes
from ace_ray.lab.exam.exam import states_of

ASTRAY = (0.0, 0.0, 0.15, 0.3)
"""Chances, drawn evenly, that the controller does not play the best by prediction after the planted decision."""


def plant_all(
    folder: Path, grid: GridSettings, *, processes: int, minutes: float | None = None, progress: bool = True
) -> int:
    """Plants in the replayed states of a label folder's training split; goes on where an earlier call stopped.

    The constant part of the critic's prompt in meta.json becomes that of these episodes.

    Args:
        folder: of labels that were made with `grid`.
        processes: worker processes, each with two environments (about 600 MB).
        minutes: time budget; files under way are finished.
        progress: show a bar.

    Returns:
        Planted episodes in the folder.

    Raises:
        DataError: the labels were made by a decision engine that acts differently from the present one.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    begun = time.monotonic()
    open_ = [file for file in sorted(folder.glob("labels-train-*.parquet")) if not _planted(file).is_file()]
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(
            processes, mp_context=context, initializer=label_worker.start, initargs=(LabelPlan(grid),)
        ) as pool,
        tqdm(unit="file", disable=not progress, desc="plant", total=len(open_)) as bar,
    ):
        _renew(folder, json.loads(json.dumps(pool.submit(label_worker.meta).result())))
        running: set[Any] = set()
        while open_ or running:
            in_time = minutes is None or time.monotonic() - begun < 60 * minutes
            while open_ and in_time and len(running) < processes:
                running.add(pool.submit(_plant, str(open_.pop(0))))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for job in done:
                job.result()
                bar.update()
    return sum(len(read_parquet(file)) for file in folder.glob("planted-*.parquet"))


def _renew(folder: Path, meta: dict[str, Any]) -> None:
    before = read_meta(folder)
    if not same(before.get("behaviour", ()), meta["behaviour"]):
        raise DataError(
            f"the labels in {folder} were made by a decision engine that acts differently from the present one",
            "label into a new folder: what survived there may not survive now",
        )
    (folder / META).write_text(json.dumps({**before, "critic_system": meta["critic_system"]}, indent=1))


def _planted(labels: Path) -> Path:
    return labels.with_name(labels.name.replace("labels-", "planted-", 1))


def _plant(labels: str) -> None:
    """In a worker process: plants in the states of one label file.

    Its file is written even when empty: it says that this one is done.
    """
    path = Path(labels)
    seed = zlib.crc32(path.name.encode())
    episodes = training_episodes(label_worker.labeller(), states_of(read_parquet(path)), CriticSettings(), ASTRAY, seed)
    write_rows(_planted(path), [{"split": "train", "episode": episode.to_json()} for episode in episodes])
