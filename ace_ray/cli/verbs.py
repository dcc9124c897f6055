"""What each command does: a call of the room that owns it. Rooms are imported when they are needed."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ace_ray.config.errors import ConfigError, ResourceError, RunFolderError
from ace_ray.config.grid import GridSettings
from ace_ray.config.load import load_settings
from ace_ray.config.paths import ABOUT, locate, runs_root
from ace_ray.config.run import RunSettings

if TYPE_CHECKING:
    from ace_ray.lab.bench.trained import Varied


def train(args: argparse.Namespace) -> int:
    from ace_ray.coevolution.train import train as run

    if args.resume not in (None, "auto") and args.config:
        raise ConfigError(
            "--resume takes its settings from the run", "leave --config out; dotted.key=value still works"
        )
    return run(args.config, args.overrides, args.resume)


def evaluate(args: argparse.Namespace) -> int:
    from ace_ray.evaluation.evaluate import Extras, evaluate_all, evaluation_settings
    from ace_ray.evaluation.precision import Precision
    from ace_ray.evaluation.rows import write_parquet
    from ace_ray.evaluation.tables import table

    if args.figure_step is not None and not args.figure:
        raise ConfigError("--figure-step says which action --figure draws", "add --figure PNG")
    if args.json and args.json == args.parquet:
        raise ConfigError(f"--json and --parquet both name {args.json}", "name two files")
    settings, grids = evaluation_settings(args.agent, args.config, args.overrides, args.env, args.data)
    scenarios = args.scenarios or settings.evaluation.scenarios
    processes = 1 if "llm" in args.agent else args.processes or settings.evaluation.processes
    until = Precision(args.until_halfwidth, args.most) if args.until_halfwidth else None
    extras = Extras(args.scores, args.episodes, args.figure, args.figure_step)
    with _model_in_control(args.agent, settings) as alone:
        found = evaluate_all(args.agent, scenarios, grids, processes=processes, extras=extras, until=until)
    result = table(found, reference=found[0].agent)
    print(result.text())
    for agent in alone:
        print(f"replies that could not be played: {agent.unusable} of {agent.asked}")
    sys.stdout.flush()  # before anything is written: a full disk costs the files and not the result
    if args.json:
        _write(args.json, found[0].to_json() if len(found) == 1 else result.to_json())
    if args.parquet:
        write_parquet(found, args.parquet)
    return 0


@contextlib.contextmanager
def _model_in_control(agents: list[str], settings: RunSettings) -> Iterator[list[Any]]:
    """For `--agent llm`: starts the model that the settings name; yields the agents that ask it (here, in one process).

    For any other agent nothing is started, and the list stays empty.
    """
    if "llm" not in agents:
        yield []
        return
    from ace_ray.agents.llm import LanguageAgent
    from ace_ray.agents.registry import given
    from llm_service.opening import open_client

    made: list[Any] = []
    with open_client(settings.llm) as client:

        def make(env: Any, grid: GridSettings) -> Any:
            made.append(LanguageAgent(env, grid, client, settings.language))
            return made[-1]

        with given("llm", make):
            yield made


def compare(args: argparse.Namespace) -> int:
    from ace_ray.evaluation.compare import read_apart
    from ace_ray.evaluation.tables import table

    if args.json and args.json.resolve() in [path.resolve() for path in args.results]:
        raise ConfigError(f"--json would overwrite the result {args.json}", "name another file")
    found = read_apart(args.results)
    compared = table(found, reference=found[0].agent)
    print(compared.markdown() if args.markdown else compared.text())
    if args.json:
        rows = [one.to_json() for one in compared.comparisons]
        _write(args.json, rows[0] if len(rows) == 1 else {"reference": compared.reference, "comparisons": rows})
    return 0


def doctor(args: argparse.Namespace) -> int:
    from ace_ray.cluster.doctor import Check, examine, gpu_names, to_json
    from ace_ray.coevolution import resources
    from ace_ray.finetune.held_out import aged, remedy
    from ace_ray.refine.builder import domain_of
    from llm_service.settings import EMBEDDED

    settings = _settings(args)
    checks = examine(settings, runs_root(settings))
    rows = resources.processes(settings)
    try:
        resources.check(rows, {"CPU": resources.announced_cpus(), "GPU": len(gpu_names())})
        checks.append(Check("profile", "ok", f"{sum(row.count for row in rows)} processes fit this machine"))
    except ResourceError as error:
        checks.append(Check("profile", "warn", error.problem.splitlines()[0], error.remedy))
    old = aged(EMBEDDED, domain_of(settings.grid))
    checks.append(
        Check("labels", "warn", old, remedy(EMBEDDED)) if old else Check("labels", "ok", "of the present engine")
    )
    found = to_json(checks)
    print(json.dumps(found, indent=1) if args.json else "\n".join(check.line() for check in checks))
    return 0 if found["fit"] else 1


def finetune(args: argparse.Namespace) -> int:
    from ace_ray.finetune.job import run_job

    run_job(_run(args.run), args.role, args.overrides, say=print)
    return 0


def report(args: argparse.Namespace) -> int:
    from ace_ray.coevolution.run_folder import read_about
    from ace_ray.evaluation.report import write_report

    run = _run(args.run)
    print(f"report: {write_report(run, read_about(run))}")
    return 0


def export(args: argparse.Namespace) -> int:
    from ace_ray.agents.export import export as write

    folder = write(_run(args.run), args.folder)
    print(f"exported: {folder}")
    return 0


def llm_build_embedded(args: argparse.Namespace) -> int:
    from ace_ray.lab.embedded.stages import build_embedded, critic_embedded, replay_embedded

    grid = _settings(args).grid
    if args.stage == "replay":
        replay_embedded(args.out, grid, processes=args.processes, say=print)
        return 0
    if args.stage == "critic":
        critic_embedded(args.out, args.labels, device=args.device, say=print)
        return 0
    if args.labels is None:
        raise ConfigError(f"the stage {args.stage} needs a label folder", "name one with --labels DIR")
    build_embedded(
        args.labels,
        args.out,
        grid,
        stage=args.stage,
        processes=args.processes,
        label_minutes=args.label_minutes,
        train_minutes=args.train_minutes,
        device=args.device,
        say=print,
    )
    return 0


def llm_serve(args: argparse.Namespace) -> int:
    from llm_service.service import serve_forever

    serve_forever(_settings(args).llm, port=args.port, say=print)
    return 0


def llm_ask(args: argparse.Namespace) -> int:
    from ace_ray.lab.exam.ask import Question
    from llm_service.adapters import reference
    from llm_service.opening import check, open_client

    settings = _on_grid(args)
    check(settings.llm)  # what follows takes long
    adapter = reference(args.adapter) if args.adapter else None
    question = Question(settings, args.scenario, args.step)
    with open_client(settings.llm) as client:
        asked = question.ask(client, print, adapter)
    count = len(asked.rounds)
    print(f"accepted: {'yes' if asked.accepted else 'no'}, after {count} round{'s' if count != 1 else ''}")
    return 0


def llm_eval(args: argparse.Namespace) -> int:
    from ace_ray.lab.exam.exam import Exam, make_states
    from ace_ray.lab.exam.result import exam_lines, exam_result
    from llm_service.adapters import reference
    from llm_service.opening import check, open_client

    settings = _on_grid(args)
    check(settings.llm)  # what follows takes long
    folder, states = make_states(settings, args.split, args.states, args.states_dir, args.minutes, args.processes)
    adapter = reference(args.adapter) if args.adapter else None
    exam = Exam(settings, folder)
    with open_client(settings.llm) as client:
        records = list(exam.take(client, states, adapter))
    found = exam_result(records, settings, args.split)
    return _print(exam_lines(found), args.json, found)


def llm_eval_critic(args: argparse.Namespace) -> int:
    from ace_ray.lab.exam.critic_exam import CriticExam
    from ace_ray.lab.exam.exam import make_states
    from ace_ray.lab.exam.result import critic_lines, critic_result
    from llm_service.adapters import reference
    from llm_service.opening import check, open_client

    settings = _on_grid(args)
    check(settings.llm)  # what follows takes long
    _, states = make_states(settings, args.split, args.states, args.states_dir, args.minutes, args.processes)
    adapter = reference(args.adapter) if args.adapter else None
    exam = CriticExam(settings)
    with open_client(settings.llm) as client:
        records = list(exam.take(client, states, adapter))
    found = critic_result(records, settings, args.split)
    return _print(critic_lines(found), args.json, found)


def replay_show(args: argparse.Namespace) -> int:
    from ace_ray.replay.inspect import show

    for line in show(_run(args.run) / "replay", args.last):
        print(line)
    return 0


def replay_verify(args: argparse.Namespace) -> int:
    from ace_ray.replay.inspect import verify

    whole, lines = verify(_run(args.run) / "replay")
    print("\n".join(lines))
    return 0 if whole else 1


def bench_screen(args: argparse.Namespace) -> int:
    from ace_ray.lab.bench.screen import bench_screen, screen_lines

    grid = _settings(args).grid
    grid = grid.model_copy(update={"env": args.env}) if args.env else grid
    result = bench_screen(grid, args.states, args.exhaustive, progress=True)
    return _print(screen_lines(result), args.json, result)


def bench_rollout(args: argparse.Namespace) -> int:
    from ace_ray.lab.bench.rollout import bench_rollout, rollout_lines

    settings = _settings(args)
    grid = settings.grid
    grid = grid.model_copy(update={"env": args.env}) if args.env else grid
    if args.llm_latency is not None:
        from ace_ray.lab.bench.refining import bench_refining, refining_lines

        result = bench_refining(settings.model_copy(update={"grid": grid}), args.scenarios, args.llm_latency)
        lines = refining_lines(result)
    else:
        result = bench_rollout(grid, args.scenarios)
        lines = rollout_lines(result)
    return _print(lines, args.json, result)


def bench_llm(args: argparse.Namespace) -> int:
    from ace_ray.finetune.held_out import deployed_case, load_gate
    from ace_ray.lab.bench.llm import measure_service, speed_lines
    from ace_ray.language.prompts import actor_messages
    from ace_ray.language.schema import ACTOR_SCHEMA
    from ace_ray.refine.builder import domain_of
    from llm_service.settings import EMBEDDED

    settings = _settings(args)
    domain = domain_of(settings.grid)
    chats = [
        actor_messages(deployed_case(case.labelled)) for case in load_gate(EMBEDDED, 64, settings.language, domain)
    ]
    result = measure_service(
        settings.llm,
        chats,
        ACTOR_SCHEMA,
        requests=args.requests,
        tokens=args.tokens,
        repeats=args.repeats,
        model_size=args.model_size,
    )
    return _print(speed_lines(result), args.json, result)


def bench_learner(args: argparse.Namespace) -> int:
    from ace_ray.grid.engine import DecisionEngine
    from ace_ray.grid.scenarios.environment import make_env
    from ace_ray.lab.bench.learner import measure_learner

    settings = _settings(args)
    engine = DecisionEngine(make_env(settings.grid), settings.grid)
    return _print(measure_learner(settings, engine.spec, args.seconds))


def bench_refiners(args: argparse.Namespace) -> int:
    from ace_ray.lab.bench.trained import REFINERS

    return _trained(args, REFINERS)


def bench_critics(args: argparse.Namespace) -> int:
    from ace_ray.lab.bench.trained import CRITICS

    return _trained(args, CRITICS)


def _trained(args: argparse.Namespace, varied: "Varied") -> int:
    from ace_ray.lab.bench.trained import compare_trained

    compare_trained(
        varied,
        args.config,
        args.overrides,
        decisions=None if args.minutes is not None else args.decisions,
        minutes=args.minutes,
        scenarios=args.scenarios,
        prefix=args.prefix,
        say=print,
    )
    return 0


def bench_grids(args: argparse.Namespace) -> int:
    from ace_ray.lab.bench.grids import AGENTS, GRIDS, PAGE, play_grids

    settings = _settings(args)
    play_grids(
        args.out,
        settings.grid,
        grids=args.env or tuple(GRIDS),
        agents=args.agent or AGENTS,
        scenarios=args.scenarios,
        processes=args.processes or settings.evaluation.processes,
        say=print,
    )
    return _print([f"page: {args.out / PAGE}"])


def bench_drills(args: argparse.Namespace) -> int:
    from ace_ray.evaluation.evaluate import evaluation_settings
    from ace_ray.lab.bench.drill_banks import make_banks
    from ace_ray.lab.bench.drills import bench_drills, with_reference

    if args.make_bank:
        settings = _settings(args)
        splits = [args.split] if args.split else ["train", "validation", "test"]
        processes = args.workers or settings.evaluation.processes
        make_banks(
            args.make_bank,
            args.bank,
            splits,
            settings.grid,
            settings.drills,
            count=args.limit,
            seed=args.seed,
            processes=processes,
            say=print,
        )
        return 0
    agents = with_reference(args.agent or [], args.reference)
    settings, grids = evaluation_settings(agents, args.config, args.overrides)
    report = bench_drills(
        agents,
        grids,
        reference=args.reference,
        bank=args.bank,
        split=args.split or "validation",
        limit=args.limit,
        lines=args.lines,
        processes=args.workers or settings.evaluation.processes,
    )
    _print([report.text()], args.json, report.to_json())
    if args.output:
        report.save(args.output)
    return 0


def runs_list(args: argparse.Namespace) -> int:
    from ace_ray.coevolution.run_folder import read_about

    root = runs_root(_settings(args))
    folders = sorted((path.parent for path in root.glob(f"*/{ABOUT}")), key=lambda path: path.stat().st_mtime)
    if not folders:
        print(f"no runs in {root}")
        return 0
    print(f"{'run':<36} {'status':<12} {'refiner':<8} {'decisions':>9} {'updates':>8} {'minutes':>8}")
    for folder in folders:
        try:
            about = read_about(folder)
            minutes = float(about.get("seconds", 0.0)) / 60
            print(
                f"{folder.name:<36} {about.get('status', '?'):<12} {about.get('refiner', '?'):<8} "
                f"{about.get('decisions', 0):>9} {about.get('updates', 0):>8} {minutes:>8.1f}"
            )
        except RunFolderError as error:
            print(f"{folder.name:<36} {error.problem}")
        except (TypeError, ValueError) as error:
            print(f"{folder.name:<36} {folder / ABOUT} has a field of another type: {error}")
    return 0


def cluster_start(args: argparse.Namespace) -> int:
    from ace_ray.cluster import head
    from llm_service.machine import usable_cpus

    started = head.start(
        args.temp_dir or head.default_temp_dir(),
        num_cpus=args.num_cpus or max(1, int(usable_cpus())),
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
    print("  ray job submit --working-dir . -- python -m ace_ray train --config smoke runs_root=$PWD/runs")
    return 0


def cluster_stop(args: argparse.Namespace) -> int:
    from ace_ray.cluster import head

    folder = args.temp_dir or head.default_temp_dir()
    ended = head.stop(folder)
    print(f"ended {ended} processes of the head in {folder}" if ended else f"no head is running in {folder}")
    return 0


def cluster_status(args: argparse.Namespace) -> int:
    from ace_ray.cluster import head

    found, told = head.status(args.temp_dir or head.default_temp_dir())
    print(f"{_addresses(found)}\n\n{told}")
    return 0


def cluster_clean(args: argparse.Namespace) -> int:
    from ace_ray.cluster import head

    if args.temp_dir or not os.environ.get("RAY_ADDRESS"):
        found = head.find(args.temp_dir or head.default_temp_dir())
        os.environ.update({**head.token_environment(), "RAY_ADDRESS": found.address})
    import ray  # only now: it reads the token's variables at its import

    from ace_ray.coevolution.connect import attach
    from ace_ray.coevolution.leftovers import clean

    attach()
    try:
        for line in clean(runs_root(_settings(args)), args.unknown):
            print(line, flush=True)
    finally:
        ray.shutdown()
    return 0


def _settings(args: argparse.Namespace) -> RunSettings:
    return load_settings(args.config, args.overrides)


def _on_grid(args: argparse.Namespace) -> RunSettings:
    """The settings with --env and --data."""
    settings = _settings(args)
    given = {name: value for name, value in (("env", args.env), ("data", args.data)) if value is not None}
    return settings.model_copy(update={"grid": settings.grid.model_copy(update=given)})


def _print(lines: list[str], path: Path | None = None, result: Any = None) -> int:
    """Prints lines, then writes the result that they are of: a full disk costs the file and not the result."""
    print("\n".join(lines), flush=True)
    if path:
        _write(path, result)
    return 0


def _run(name: str) -> Path:
    return locate(name, RunSettings())


def _addresses(head: Any) -> str:
    return (
        f"dashboard  {head.dashboard}\nRay        {head.address}\nmetrics    {head.metrics}\nfolder     {head.temp_dir}"
    )


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
