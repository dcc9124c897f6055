"""Applications on Ray Serve whose run is gone, and which of them `ace cluster clean` removes.

A replica ends itself when the heartbeat of its run stands still. What is left is what has no replica that could: an
application that never got its CPUs, or whose engine does not start.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ace_ray.coevolution.run_folder import is_alive, read_about
from ace_ray.config.errors import RunFolderError
from ace_ray.config.paths import ABOUT
from llm_service import service
from llm_service.deployment import AppArguments


@dataclass(frozen=True)
class Verdict:
    """What is known of one application: its run is `alive` or `gone`, it belongs to `no run`, or that is `unknown`."""

    state: Literal["alive", "gone", "no run", "unknown"]
    why: str


def clean(root: Path, unknown: bool = False) -> Iterator[str]:
    """Removes the applications whose run is gone from the cluster of this process; yields a line about each one.

    Args:
        root: Folder of runs.
        unknown: Also remove those of which nothing tells whether their run is alive.
    """
    for app, arguments in sorted(service.applications().items()):
        verdict = judge(app, arguments, known_runs(root))
        removed = verdict.state == "gone" or (unknown and verdict.state == "unknown")
        if removed:
            service.take_down(app)
        yield f"{'removed' if removed else 'kept':<8} {app}: {verdict.why}"


def judge(app: str, arguments: AppArguments | None, runs: Sequence[tuple[str, Path]]) -> Verdict:
    """Whether the run of an application is there: by the runs whose application has that name, and by its heartbeat.

    Several runs may share one name of an application, and another user's root may hold a run of the same name. So the
    application is kept if any of them is alive, and its own heartbeat must be seen before it counts as gone.

    Args:
        app: Name of the application.
        arguments: What it was deployed with; None where that cannot be read.
        runs: (name, folder) of each known run.
    """
    if app in service.OF_NO_RUN:
        return Verdict("no run", "it belongs to no run")
    heartbeat = arguments.heartbeat if arguments is not None else ""
    folders = [Path(heartbeat).parent] if heartbeat else []
    folders += [folder for name, folder in runs if service.app_name(name) == app]
    for folder in folders:
        if is_alive(folder):
            return Verdict("alive", f"{folder} is running")
    if heartbeat and not os.path.isfile(heartbeat):  # False also where another user's folder is closed to this one
        return Verdict("unknown", f"{heartbeat} is not seen from here")
    if not folders:
        return Verdict("unknown", "nothing tells whose it is")
    return Verdict("gone", f"{folders[0]} is not running")


def known_runs(root: Path) -> list[tuple[str, Path]]:
    """(name, folder) of each run under `root`; a run whose `run.json` cannot be read has the name of its folder."""
    return [(_name(path.parent), path.parent) for path in sorted(root.glob(f"*/{ABOUT}"))]


def _name(folder: Path) -> str:
    try:
        return str(read_about(folder).get("name", folder.name))
    except RunFolderError:
        return folder.name
