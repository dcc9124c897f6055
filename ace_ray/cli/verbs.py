"""What each command does: a call of the room that owns it. Rooms are imported when they are needed."""

import argparse
import json
from pathlib import Path
from typing import Any

from ace_ray.config.errors import ConfigError, ResourceError, RunFolderError
from ace_ray.config.load import load_settings
from ace_ray.config.run import RunSettings


def train(args: argparse.Namespace) -> int:
    from ace_ray.coevolution.train import train as run

    if args.resume and args.config:
        raise ConfigError(
            "--resume takes its settings from the run", "leave --config out; dotted.key=value still works"
        )
    return run(args.config, args.overrides, args.resume)


def evaluate(args: argparse.Namespace) -> int:
    from ace_ray.evaluation.evaluate import evaluate as play
    from ace_ray.evaluation.tables import table

    if (args.figure or args.figure_step is not None) and not args.episode:
        raise ConfigError("--figure and --figure-step draw an action of a saved episode", "add --episode DIR")
    settings = _settings(args)
    overrides = {name: value for name, value in (("env", args.env), ("data", args.data)) if value is not None}
    grid = settings.grid.model_copy(update=overrides)
    scenarios = args.scenarios or settings.evaluation.scenarios
    processes = args.processes or settings.evaluation.processes
    result = play(args.agent, scenarios, grid, processes=processes, json_path=args.json)
    print(table([result], reference=result.agent).text())
    if args.episode:
        from ace_ray.evaluation.episodes import save_episode
        from ace_ray.grid.scenario_sets import parse

        first = parse(scenarios, grid).scenarios[0]
        save_episode(args.agent, first, grid, args.episode, figure=args.figure, figure_step=args.figure_step)
        print(f"episode: {args.episode}")
    return 0


def compare(args: argparse.Namespace) -> int:
    from ace_ray.evaluation.compare import compare as difference
    from ace_ray.evaluation.result import load

    found = difference(load(args.a), load(args.b))
    print(found.text())
    if args.json:
        _write(args.json, found.to_json())
    return 0


def doctor(args: argparse.Namespace) -> int:
    from ace_ray.coevolution import resources, run_folder
    from cluster.doctor import Check, examine, gpu_names, to_json

    settings = _settings(args)
    checks = examine(settings, run_folder.runs_root(settings))
    rows = resources.processes(settings)
    try:
        resources.check(rows, {"CPU": resources.logical_cpus(), "GPU": len(gpu_names())})
        checks.append(Check("profile", "ok", f"{sum(row.count for row in rows)} processes fit this machine"))
    except ResourceError as error:
        checks.append(Check("profile", "warn", error.problem.splitlines()[0], error.remedy))
    found = to_json(checks)
    print(json.dumps(found, indent=1) if args.json else "\n".join(check.line() for check in checks))
    return 0 if found["fit"] else 1


def export(args: argparse.Namespace) -> int:
    from ace_ray.agents.export import export as write

    folder = write(_run(args.run), args.folder)
    print(f"exported: {folder}")
    return 0


def runs_list(args: argparse.Namespace) -> int:
    from ace_ray.coevolution.run_folder import ABOUT, read_about, runs_root

    root = runs_root(_settings(args))
    folders = sorted((path.parent for path in root.glob(f"*/{ABOUT}")), key=lambda path: path.stat().st_mtime)
    if not folders:
        print(f"no runs in {root}")
        return 0
    print(f"{'run':<36} {'status':<12} {'refiner':<8} {'decisions':>9} {'updates':>8} {'minutes':>8}")
    for folder in folders:
        try:
            about = read_about(folder)
        except RunFolderError as error:
            print(f"{folder.name:<36} {error.problem}")
            continue
        minutes = float(about.get("seconds", 0.0)) / 60
        print(
            f"{folder.name:<36} {about.get('status', '?'):<12} {about.get('refiner', '?'):<8} "
            f"{about.get('decisions', 0):>9} {about.get('updates', 0):>8} {minutes:>8.1f}"
        )
    return 0


def cluster_start(args: argparse.Namespace) -> int:
    import os

    from cluster import head

    started = head.start(
        args.temp_dir or head.default_temp_dir(),
        num_cpus=args.num_cpus or len(os.sched_getaffinity(0)),
        num_gpus=args.num_gpus,
        object_store_mb=args.object_store_mb or RunSettings().resources.object_store_mb,
        port=args.port,
        dashboard_port=args.dashboard_port,
        metrics_port=args.metrics_port,
    )
    print(_addresses(started))
    print(f"token      {head.token_source()}")
    print("\nsubmit a run with")
    print(f"  export RAY_AUTH_MODE=token RAY_API_SERVER_ADDRESS={started.dashboard}")
    print("  ray job submit --working-dir . -- python -m ace_ray train --config configs/smoke.yaml runs_root=$PWD/runs")
    return 0


def cluster_stop(args: argparse.Namespace) -> int:
    from cluster import head

    folder = args.temp_dir or head.default_temp_dir()
    ended = head.stop(folder)
    print(f"ended {ended} processes of the head in {folder}" if ended else f"no head runs in {folder}")
    return 0


def cluster_status(args: argparse.Namespace) -> int:
    from cluster import head

    found, told = head.status(args.temp_dir or head.default_temp_dir())
    print(f"{_addresses(found)}\n\n{told}")
    return 0


def _settings(args: argparse.Namespace) -> RunSettings:
    return load_settings(args.config, args.overrides)


def _run(name: str) -> Path:
    from ace_ray.coevolution.run_folder import locate

    return locate(name, RunSettings())


def _addresses(head: Any) -> str:
    return (
        f"dashboard  {head.dashboard}\nRay        {head.address}\nmetrics    {head.metrics}\nfolder     {head.temp_dir}"
    )


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
