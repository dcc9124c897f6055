"""`ace finetune RUN`: data set -> LoRA -> gate -> published or refused; the body of the fine-tuning job.

Whatever happens is written down in `adapters/finetune-NNN.json`: the data, the training, the gate's figures, the
decision.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ace_ray.config.errors import DataError
from ace_ray.config.files import write_json
from ace_ray.config.load import load_settings
from ace_ray.config.paths import ABOUT, CONFIG
from ace_ray.config.run import RunSettings
from ace_ray.finetune.dataset import draw, read_lessons
from ace_ray.finetune.gate import Judge, client_replier, live_judge, run_gate
from ace_ray.finetune.held_out import GateCase, load_gate, warn_if_aged
from ace_ray.finetune.train import train_adapter
from ace_ray.refine.builder import domain_of
from llm_service.adapters import AdapterRef, next_version, version_dir, write_manifest
from llm_service.errors import LLMServiceError
from llm_service.protocol import LLM
from llm_service.settings import EMBEDDED

log = logging.getLogger(__name__)
Role = Literal["actor", "critic"]
_WHICH = {"sft": "refinements to learn from", "dpo": "refinements with a better and a worse reply"}


def finetune(
    run: Path,
    settings: RunSettings,
    client: LLM,
    *,
    role: Role = "actor",
    gate: list[GateCase] | None = None,
    judge: Judge | None = None,
    say: Callable[[str], None] = log.info,
) -> dict[str, Any]:
    """Tune the run's language model on its own refinements.

    Args:
        run: run folder; its `replay/` is read, its `adapters/` written.
        settings: of the run.
        client: asks both versions at the gate and publishes the new one.
        role: whose adapter. Confirmed refinements are the actor's; there is no label for the critic yet.
        gate: held-out decisions; None reads those shipped with the embedded model.
        judge: replays proposals that the gate's cache does not hold (`live.live_judge`); None counts them as worst.
        say: gets one line a stage.

    Returns:
        The record that was written, with `accepted` and `published`.

    Raises:
        DataError: fewer confirmed refinements than `finetune.least`, a role that cannot be tuned, or too few decisions
            for the gate.
        llm_service.errors.ModelError: the base model cannot be loaded.
    """
    tune = settings.finetune
    if role != "actor":
        raise DataError(
            f"there is nothing to tune the {role} on: replays confirm actions, not edits", "use --role actor"
        )
    begun = time.time()
    base = settings.llm.engine.model_dir()
    lessons = read_lessons(run / "replay", tune.window, tune.labels, settings.grid.compare.tie)
    if tune.objective == "dpo":
        lessons = [lesson for lesson in lessons if lesson.worse]
    if len(lessons) < tune.least:
        raise DataError(
            f"{run.name} has {len(lessons)} {_WHICH[tune.objective]}, fine-tuning needs {tune.least}",
            "let the run refine for longer, or lower finetune.least",
        )
    cases = (
        load_gate(EMBEDDED, tune.gate_snapshots, settings.language, domain_of(settings.grid)) if gate is None else gate
    )
    examples = draw(lessons, tune.examples, np.random.default_rng(tune.seed))
    adapters = run / "adapters"
    adapters.mkdir(parents=True, exist_ok=True)
    version, directory = new_version(adapters, role)
    kind = f"{tune.labels}, {tune.objective}"
    say(f"training {role}-v{version} on {len(examples)} examples drawn from {len(lessons)} refinements ({kind})")
    device = "cuda" if settings.resources.finetune_gpu > 0 else "cpu"
    template = settings.llm.engine.chat_template_kwargs
    report = train_adapter(base, examples, tune, directory, device=device, template=template)
    say(f"loss {report.first_loss:.3f} -> {report.last_loss:.3f} in {report.seconds:.0f} s")
    data = {
        "refinements": len(lessons),
        "first_id": lessons[0].id,
        "last_id": lessons[-1].id,
        "with_worse": sum(bool(lesson.worse) for lesson in lessons),
        "weights": {"min": min(one.weight for one in lessons), "max": max(one.weight for one in lessons)},
    }
    extra = {"data": data, "training": report.to_json(), "settings": tune.model_dump()}
    ref = seal(directory, role, version, base, extra)
    present = client.current(role)
    result = run_gate(
        cases,
        client_replier(client, present, settings.language),
        client_replier(client, ref, settings.language),
        tune.gate_tolerance,
        judge,
        None if present is None else client_replier(client, None, settings.language),
    )
    say(
        f"gate on {result.states} held-out pivotal decisions: survival regret {result.present_regret:.3f} -> "
        f"{result.new_regret:.3f}, difference {result.difference:+.4f} (standard error {result.standard_error:.4f})"
    )
    for other, changed in result.against.items():
        say(f"against the {other} version: " + ", ".join(f"{name} {_text(one)}" for name, one in changed.items()))
    published, problem = False, ""
    if result.accepted:
        try:
            publish(client, ref)
            published = True
        except LLMServiceError as error:
            problem = error.problem
    record = {
        "role": role,
        "version": version,
        "base_model": base.name,
        "against": _name(present),
        "accepted": result.accepted,
        "published": published,
        "problem": problem,
        "gate": result.to_json(),
        "data": data,
        "training": report.to_json(),
        "settings": tune.model_dump(),
        "seconds": round(time.time() - begun, 1),
        "time": begun,
    }
    _write(adapters, record)
    outcome = "published" if published else f"accepted, but not published: {problem}"
    say(f"{ref.name} {outcome if result.accepted else 'refused: the former version stays'}")
    return record


def run_job(
    run: Path, role: Role = "actor", overrides: Sequence[str] = (), say: Callable[[str], None] = log.info
) -> dict[str, Any]:
    """`finetune` with the run's own settings and service: the application that serves the run, else an own engine.

    Args:
        run: run folder.
        role: whose adapter.
        overrides: `dotted.key=value`, over the run's settings.
        say: gets one line a stage.

    Raises:
        ConfigError: the folder holds no settings of a run.
        DataError, llm_service.errors.ModelError: see `finetune`.
    """
    settings = load_settings([run / CONFIG], overrides)

    warn_if_aged(EMBEDDED, domain_of(settings.grid))
    with open_client(run, settings) as client, live_judge(settings) as judge:
        return finetune(run, settings, client, role=role, judge=judge, say=say)


@contextlib.contextmanager
def open_client(run: Path, settings: RunSettings) -> Iterator[LLM]:
    """A client of the run's application where one is up on the cluster of this process, else of an engine in here."""
    from llm_service.client import LLMClient, LocalClient

    adapters = run / "adapters"
    app = _application(run)
    if app is not None:
        yield LLMClient(app, adapters, settings.llm)
        return
    log.info("no service runs for %s: starting an engine in this process", run.name)
    with LocalClient(settings.llm.engine, adapters, settings.llm) as client:
        yield client


def _application(run: Path) -> str | None:
    """Name of the run's application if this process belongs to a cluster that serves it."""
    if not (os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR")):
        return None
    import ray
    from ray import serve

    from llm_service.service import app_name

    ray.init(address="auto", ignore_reinit_error=True, log_to_driver=False)
    about = run / ABOUT
    name = app_name(json.loads(about.read_text())["name"] if about.is_file() else run.name)
    return name if name in serve.status().applications else None


def _name(ref: AdapterRef | None) -> str:
    return "base model" if ref is None else ref.name


def _text(paired: dict[str, Any]) -> str:
    interval = paired["ci95"]
    within = "no interval" if interval is None else f"95 % interval {interval[0]:+.3f} to {interval[1]:+.3f}"
    return f"{paired['difference']:+.3f} ({within})"


def _write(adapters: Path, record: dict[str, Any]) -> None:
    """`finetune-NNN.json`, whole or not at all."""
    number = 1 + len(list(adapters.glob("finetune-*.json")))
    path = adapters / f"finetune-{number:03d}.json"
    write_json(path, record)


def new_version(adapters: Path, role: str) -> tuple[int, Path]:
    """Number and directory of the next version; refused ones keep theirs, so a number means one adapter for ever."""
    version = next_version(adapters, role)
    return version, version_dir(adapters, role, version)


def seal(directory: Path, role: str, version: int, base: Path, extra: dict[str, Any]) -> AdapterRef:
    """Write the manifest (hashes, base model, rank, data, seed, losses); the directory never changes afterwards."""
    return write_manifest(directory, role=role, version=version, base_model=base, extra=extra)


def publish(client: LLM, ref: AdapterRef) -> None:
    """Make `ref` the version that its role is served with; running refiners pick it up at their next request.

    Raises:
        llm_service.errors.LLMServiceError: the version was refused or its warm-up failed; the former one stays.
    """
    client.publish(ref)
