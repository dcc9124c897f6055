"""Real Grid2Op environments with the LightSim backend, on any data set, with fast resets."""

import importlib.util
import os
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import grid2op
from grid2op.Chronics import GridStateFromFile, Multifolder
from grid2op.MakeEnv.Make import TEST_DEV_ENVS
from grid2op.MakeEnv.PathUtils import DEFAULT_PATH_DATA
from grid2op.Reward import ConstantReward
from lightsim2grid import LightSimBackend

from ace_ray.config.errors import AceError, DataError
from ace_ray.config.grid import GridSettings
from ace_ray.grid.scenarios.chronic_files import draws_maintenance, shortened
from ace_ray.grid.scenarios.chronics import CachedMultifolder, reserve_cache
from ace_ray.grid.scenarios.data import DataSet, data_id, open_data

_MULTIMIX = ".multimix"


def environment_folder(name: str) -> Path:
    """The folder of an environment: a path, one inside the grid2op package, or one downloaded earlier.

    One mix of a set of mixes is named like a subfolder: `l2rpn_neurips_2020_track2/x1`.

    Raises:
        DataError: No such environment on this machine; the message says how to download it.
    """
    if os.path.isdir(name):
        folder = Path(name).resolve()
    else:
        whole, _, mix = name.partition("/")
        folder = Path(TEST_DEV_ENVS.get(whole, os.path.join(DEFAULT_PATH_DATA, whole))) / mix
    if not (folder / "grid.json").exists() and not (folder / _MULTIMIX).exists():
        raise DataError(
            f"environment '{name}' is neither inside the grid2op package nor in {DEFAULT_PATH_DATA}",
            f"download it with: python -c \"import grid2op; grid2op.make('{name}')\", or set grid.env to one of: "
            + ", ".join(sorted(n for n in TEST_DEV_ENVS if n.startswith(("l2rpn", "rte", "educ")))),
        )
    if (folder / _MULTIMIX).exists():
        mixes = sorted(p.name for p in folder.iterdir() if p.is_dir())
        raise DataError(
            f"environment '{name}' is a set of mixes, of which one must be chosen",
            f"set grid.env to one mix: {', '.join(f'{name}/{mix}' for mix in mixes)}",
        )
    return folder


def data_set(settings: GridSettings) -> DataSet:
    """The data set that the settings name, without building the environment."""
    folder = environment_folder(settings.env)
    return open_data(str(folder), data_id(settings.env, settings.data))


def make_env(settings: GridSettings, own_reward: bool = False) -> Any:
    """Build the environment: real rules, opponent and maintenance; forecasts on, so that `obs.simulate` works.

    Grid2Op's own reward is switched off (`ConstantReward`): the decision environment computes the reward of
    `RewardSettings` from observations. Nothing is written anywhere.

    Args:
        settings: Environment, data, size of the cache.
        own_reward: Leave the environment's own reward on, for agents of Grid2Op that follow it.

    Returns:
        A `grid2op.Environment`, with its data set in `env.ace_data` and its settings name in `env.ace_name`.

    Raises:
        DataError: Unknown environment, or chronics that are missing or made for another grid.
    """
    reserve_cache(settings.cache_mb)
    options: dict[str, Any] = {} if own_reward else {"reward_class": ConstantReward}
    if _reads_files(environment_folder(settings.env)):
        options["chronics_class"] = CachedMultifolder
    return _made(settings, options)


def make_stock_env(settings: GridSettings, chronics: Collection[str]) -> Any:
    """The same environment and data with Grid2Op's own reader of chronics and reward, to measure against.

    Args:
        settings: Environment and data.
        chronics: Those that it may play; Grid2Op reads only sets whose chronics are all of one kind.

    Raises:
        DataError: As `make_env`, or chronics of several kinds.
    """
    feeding = dict(_config(environment_folder(settings.env)).get("data_feeding_kwargs") or {})
    feeding["filter_func"] = lambda path: os.path.basename(path) in chronics
    return _made(settings, {"data_feeding_kwargs": feeding})


def _made(settings: GridSettings, options: dict[str, Any]) -> Any:
    folder = environment_folder(settings.env)
    data = open_data(str(folder), data_id(settings.env, settings.data))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            env = grid2op.make(
                str(folder),
                test=True,
                backend=LightSimBackend(),
                chronics_path=data.path,
                **options,
            )
    except (AceError, MemoryError):
        raise
    except Exception as error:  # of Grid2Op, pandas, json, the backend: whatever reads one of the folder's files
        raise DataError(
            f"environment '{settings.env}' cannot be built on the chronics in {data.path}: "
            f"{type(error).__name__}: {shortened(error)}",
            f"the files in {folder} must be whole, and the chronics made for this environment",
        ) from error
    env.ace_data = data
    env.ace_name = settings.env
    return env


def is_random(settings: GridSettings) -> bool:
    """Whether anything in an episode is drawn from the environment seed: an opponent's attacks, or maintenance."""
    config, data = _config(environment_folder(settings.env)), data_set(settings)
    kind = _series_class(config)
    return bool(config.get("opponent_attack_duration")) or any(
        draws_maintenance(os.path.join(data.path, chronic), kind) for chronic in data.chronics
    )


def _reads_files(folder: Path) -> bool:
    """Whether the environment reads its series from CSV files, which `CachedMultifolder` knows how to share."""
    config = _config(folder)
    chronics = config.get("chronics_class") or Multifolder
    return issubclass(chronics, Multifolder) and issubclass(_series_class(config), GridStateFromFile)


def _series_class(config: dict) -> type:
    feeding = config.get("data_feeding_kwargs") or {}
    return feeding.get("gridvalueClass") or config.get("grid_value_class") or object


def _config(folder: Path) -> dict:
    """The `config` of the environment's `config.py` (Grid2Op itself runs that file to build the environment)."""
    spec = importlib.util.spec_from_file_location("_environment_config", folder / "config.py")
    if spec is None or spec.loader is None:
        raise DataError(f"{folder} has no config.py", "it is not a Grid2Op environment")
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # the file is a program
            raise DataError(
                f"{folder / 'config.py'} does not run with this Grid2Op: {type(error).__name__}: {shortened(error)}",
                "fix the file, or choose another environment",
            ) from error
    config = getattr(module, "config", None)
    if not isinstance(config, dict):
        raise DataError(f"{folder / 'config.py'} has no dictionary `config`", "it is not a Grid2Op environment")
    return config
