"""Where things lie on disk: profiles, and runs."""

import difflib
import os
from pathlib import Path

from ace_ray.config.errors import ConfigError, RunFolderError
from ace_ray.config.run import RunSettings

PACKAGE = Path(__file__).resolve().parents[1]
PROFILES = PACKAGE / "profiles"  # in the repository a link to configs/, in an installed package a folder

RUNS_VARIABLE = "ACE_RUNS"
ABOUT = "run.json"  # what makes a folder a run
CONFIG = "config.yaml"  # the settings that it was last started with
HEARTBEAT = "heartbeat"  # its time of change says when the run's driver was last alive
HEARTBEAT_SECONDS = 10.0


def shipped_profiles() -> list[str]:
    """Return the names of the profiles that come with the package: `local`, `grids/l2rpn_case14_sandbox`, ..."""
    return sorted(path.relative_to(PROFILES).with_name(path.stem).as_posix() for path in PROFILES.glob("**/*.yaml"))


def find_profile(profile: Path | str) -> Path:
    """Return the file of a profile, which is given as a path or as the name of one that comes with the package.

    A file of that name in the working folder goes before a profile of the package.

    Raises:
        ConfigError: It is neither.
    """
    path = Path(profile).expanduser()
    if path.is_file():
        return path
    names = shipped_profiles()
    if str(profile) in names:
        return PROFILES / f"{profile}.yaml"
    nearest = difflib.get_close_matches(path.stem, names, n=1)
    raise ConfigError(
        f"no profile {profile}: it is neither a file nor the name of a profile of this package",
        f"{f'did you mean {nearest[0]}? ' if nearest else ''}name a YAML file, or one of: {', '.join(names)}",
    )


def inside_job() -> bool:
    """Whether this process is the entry point of a submitted Ray job (its working folder is temporary)."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def runs_root(settings: RunSettings | None = None) -> Path:
    """The absolute folder of runs: $ACE_RUNS where it is set, else `runs_root` of the settings.

    Raises:
        ConfigError: A relative folder inside a submitted job, where it would vanish with the job.
    """
    root = Path(os.environ.get(RUNS_VARIABLE) or (settings or RunSettings()).runs_root).expanduser()
    if not root.is_absolute() and inside_job():
        raise ConfigError(
            f"runs_root={root} is relative, and the folder of a submitted job is temporary",
            f"set runs_root or ${RUNS_VARIABLE} to an absolute folder that every node sees",
        )
    return root.absolute()


def under_root(name: str | Path, settings: RunSettings | None = None) -> Path:
    """`name` itself where it is absolute or exists, else the folder of that name under the runs root."""
    path = Path(name).expanduser()
    if path.is_absolute() or path.exists():
        return path.absolute()
    return runs_root(settings) / path  # only now: inside a job an absolute path needs no absolute root


def locate(run: str | Path, settings: RunSettings | None = None) -> Path:
    """The absolute folder of an existing run, given as a path or as a name under the runs root.

    Raises:
        RunFolderError: Neither is a run.
    """
    path = Path(run).expanduser()
    if not (path / ABOUT).is_file() and not path.is_absolute():
        path = runs_root(settings) / path
    if (path / ABOUT).is_file():
        return path.absolute()
    looked = "" if path == Path(run).expanduser() else f" (also not as {path})"
    raise RunFolderError(f"no run {run}{looked}", "`ace runs list` shows the runs")
