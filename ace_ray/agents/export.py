"""`ace export RUN DIR`: a trained policy as a Grid2Op submission that needs neither Ray nor a language model.

The folder holds `make_agent(env, path)`, the weights and their card, the settings under which decisions are made, and a
copy of the rooms config, grid, policy and agents, so that it plays where this project is not installed:

    DIR/__init__.py  submission.py  policy.safetensors  policy.json  export.json  requirements.txt  code/ace_ray/…
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from pathlib import Path

from ace_ray.agents.exported import SETTINGS, settings_of
from ace_ray.config.errors import AceError
from ace_ray.config.grid import GridSettings
from ace_ray.config.load import load_settings
from ace_ray.config.paths import CONFIG
from ace_ray.policy import checkpoint

MODULES = ("__init__.py", "schema.py")
ROOMS = ("config", "grid", "policy", "agents")
NEEDED = ("grid2op", "lightsim2grid", "numpy", "numba", "torch", "safetensors", "pydantic", "gymnasium", "pyyaml")
NOT_COPIED = ("weeks", "*.pyc")  # compiled kernels (numba's caches) do go along: they save half a minute at the start

SUBMISSION = '''"""A policy exported by `ace export`. Grid2Op: `agent = make_agent(env, path_of_this_folder)`."""

import os
import sys


def make_agent(env, path=None):
    """Returns the agent for `env`; `path` is this folder. Refuses a grid that the policy was not trained on."""
    path = path or os.path.dirname(os.path.abspath(__file__))
    if "ace_ray" not in sys.modules:
        sys.path.insert(0, os.path.join(path, "code"))
    from ace_ray.agents.exported import load

    return load(env, path)
'''


def export(run: str | os.PathLike[str], folder: str | os.PathLike[str], version: str | int | None = None) -> Path:
    """Writes the policy of a run as a Grid2Op submission.

    Args:
        run: run folder (with `config.yaml` and `checkpoints/`).
        folder: made here; must not exist, or be empty.
        version: learner updates of the checkpoint, None for the latest.

    Returns:
        The folder.

    Raises:
        AceError: no such run or checkpoint, or `folder` holds something or cannot be written; no half is left.
    """
    run, folder = Path(run), Path(folder)
    source = checkpoint.find(run, version)
    checkpoint.load(source)  # a torn checkpoint is better noticed now
    if folder.exists() and any(folder.iterdir()):
        raise AceError(f"{folder} is not empty", "name a new folder")
    settings = load_settings([run / CONFIG]).grid if (run / CONFIG).is_file() else settings_of(source)
    try:
        _write(folder, run, source, settings)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)  # half an export is none
        raise AceError(
            f"cannot write {folder}: {error.strerror or error}", "free space, or name another folder"
        ) from error
    return folder


def _write(folder: Path, run: Path, source: Path, settings: GridSettings) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in (checkpoint.WEIGHTS, checkpoint.CARD):
        shutil.copyfile(source / name, folder / name)
    versions = {name: importlib.metadata.version(name) for name in NEEDED}
    made = {"run": run.name, "checkpoint": source.name, "grid": settings.model_dump(), "versions": versions}
    (folder / SETTINGS).write_text(json.dumps(made, indent=1) + "\n")
    (folder / "requirements.txt").write_text("".join(f"{name}=={pin}\n" for name, pin in versions.items()))
    (folder / "submission.py").write_text(SUBMISSION)
    (folder / "__init__.py").write_text("from .submission import make_agent as make_agent\n")
    package = Path(__file__).resolve().parents[1]
    code = folder / "code" / package.name
    code.mkdir(parents=True)
    for module in MODULES:
        shutil.copyfile(package / module, code / module)
    for room in ROOMS:
        shutil.copytree(package / room, code / room, ignore=shutil.ignore_patterns(*NOT_COPIED))
