"""`ace bench rollout --llm-latency`: what a refiner at work costs the rollout worker beside it.

One worker and one refiner on two cores. The refiner is the run's own (look-back comparison, prompts, rounds with
feedback, replays), in a process of its own, and works off a recorded load: the salvageable decisions shipped with the
embedded model, each of whose questions is answered after a fixed time, as a model on another machine would, or by the
real engine on the same two cores. The worker plays every scenario twice side by side, ten decisions with the refiner at
rest and the same ten with it at work, now these first and now those, so that what else the machine does meets both.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

import numpy as np
import psutil
from tqdm import tqdm

from ace_ray.config.errors import WorkerError
from ace_ray.config.run import RunSettings
from ace_ray.finetune.held_out import read_seeds
from ace_ray.grid.decision_env import DecisionEnv
from ace_ray.grid.engine import DecisionEngine
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.grid.scenarios.scenario import Scenario
from ace_ray.grid.scenarios.scenario_sets import parse
from ace_ray.language.actor import Actor
from ace_ray.refine.builder import domain_of, make_comparator
from ace_ray.refine.proposers import LanguageProposer
from ace_ray.refine.refiner import Refiner
from ace_ray.replay.pending import PendingRefinement
from llm_service.client import Client, LocalClient
from llm_service.fake import FakeClient
from llm_service.protocol import Request

Latency = float | Literal["engine"]
_BLOCK = 10  # decisions, about a second
_RESAMPLES = 4000
_REST = signal.SIGUSR1
_POLL_S = 0.005
_SLICE_S = 0.05
_START_S = 300.0


def bench_refining(settings: RunSettings, scenarios: str, latency: Latency) -> dict[str, Any]:
    """Measure (see the module docstring).

    Args:
        scenarios: set of scenarios; each is played once in either way.
        latency: seconds until a question is answered, or 'engine' for the real model of `llm.engine`.

    Returns:
        JSON-able, as docs/json.md says.

    Raises:
        WorkerError: the refiner died.
    """
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:2])  # the refiner inherits it
    try:
        with _RefinerBeside(settings, latency) as refiner:
            return _measure(settings, scenarios, latency, refiner)
    finally:
        os.sched_setaffinity(0, allowed)


def refining_lines(result: dict[str, Any]) -> list[str]:
    """What `bench_refining` found, as lines to print."""
    answered = "by the engine" if result["latency_s"] is None else f"after {result['latency_s']:g} s"
    refiner, (low, high) = result["refiner"], result["ratio_ci95"]
    return [
        f"{result['env']}, greedy on {result['scenarios']}: {result['decisions']} decisions in either way, "
        f"{result['cores']} cores",
        f"{result['decisions_per_s']['off']:8.2f} decisions a second with the refiner at rest",
        f"{result['decisions_per_s']['on']:8.2f} with the refiner at work: {refiner['questions']} questions answered "
        f"{answered}, {refiner['outcomes']} outcomes, {refiner['cpu_s']:.0f} of {refiner['seconds']:.0f} s on the CPU",
        f"{result['ratio']:8.2f} ratio ({low:.2f} to {high:.2f}), the median of {result['blocks']} blocks "
        f"{result['ratio_median']:.2f}; {result['ratio_cpu']:.2f} by the worker's CPU time",
    ]


def _measure(settings: RunSettings, scenarios: str, latency: Latency, refiner: _RefinerBeside) -> dict[str, Any]:
    workers = {"off": _Worker(settings), "on": _Worker(settings)}
    chosen = parse(scenarios, settings.grid).scenarios
    for worker in workers.values():  # compiles, and reads the chronic
        worker.enter(chosen[0])
        worker.play()
    refiner.wait()
    blocks: dict[str, list[_Block]] = {"off": [], "on": []}
    order = ["off", "on"]
    for scenario in tqdm(chosen, desc="bench rollout", unit="scenario"):
        for worker in workers.values():
            worker.enter(scenario)
        while not workers["off"].over:
            for way in order:
                if way == "on":
                    refiner.work()
                blocks[way].append(workers[way].play())
                refiner.rest()
            order.reverse()
    seconds = {way: np.array([block.seconds for block in played]) for way, played in blocks.items()}
    cpu = {way: sum(block.cpu_s for block in played) for way, played in blocks.items()}
    decisions = sum(block.decisions for block in blocks["off"])
    ratio, low, high = _ratio(seconds["off"], seconds["on"])
    return {
        "env": settings.grid.env,
        "scenarios": scenarios,
        "latency_s": None if latency == "engine" else latency,
        "cores": len(os.sched_getaffinity(0)),
        "decisions": decisions,
        "blocks": len(blocks["on"]),
        "decisions_per_s": {way: decisions / float(times.sum()) for way, times in seconds.items()},
        "ratio": ratio,
        "ratio_ci95": [low, high],
        "ratio_median": float(np.median(seconds["off"] / seconds["on"])),
        "ratio_cpu": cpu["off"] / cpu["on"],
        "refiner": {**refiner.stop(), "seconds": float(seconds["on"].sum())},
    }


def _ratio(off: np.ndarray, on: np.ndarray) -> tuple[float, float, float]:
    """Time of all blocks at rest over that at work, and its 95 % interval by resampling blocks."""
    drawn = np.random.default_rng(0).integers(len(off), size=(_RESAMPLES, len(off)))
    low, high = np.percentile(off[drawn].sum(axis=1) / on[drawn].sum(axis=1), [2.5, 97.5])
    return float(off.sum() / on.sum()), float(low), float(high)


@dataclass(frozen=True)
class _Block:
    """Decisions played in a row, their wall time and the worker's CPU time."""

    decisions: int
    seconds: float
    cpu_s: float


class _Worker:
    """Plays greedily, a block of decisions at a time; what one plays another one plays, too."""

    def __init__(self, settings: RunSettings) -> None:
        env = make_env(settings.grid)
        self._env = DecisionEnv(env, DecisionEngine(env, settings.grid), settings.grid)
        self.over = True

    def enter(self, scenario: Scenario) -> None:
        self._state, info = self._env.reset(options={"scenario": scenario})
        self.over = info["decision"] is None

    def play(self) -> _Block:
        begun, cpu_begun = time.perf_counter(), time.process_time()
        decisions = 0
        while decisions < _BLOCK and not self.over:
            self._state, _, _, _, info = self._env.step(int(self._state["score"].argmax()))
            self.over = info["decision"] is None
            decisions += 1
        return _Block(decisions, time.perf_counter() - begun, time.process_time() - cpu_begun)


class _Switch:
    """Lets the refiner's process work or rest, wherever it is: a signal's handler holds it, and its engine, up.

    The two sides share plain numbers: a handler may interrupt another one, and must find no lock taken.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._working, self._resting, self._ended = (context.RawValue("b", 0) for _ in range(3))

    # --- the worker's side -------------------------------------------------------------------------------------------

    @property
    def resting(self) -> bool:
        return bool(self._resting.value)

    def work(self) -> None:
        self._resting.value = 0
        self._working.value = 1

    def rest(self, refiner: int) -> None:
        """Call it to rest; `resting` tells when it does."""
        self._working.value = 0
        os.kill(refiner, _REST)

    def end(self) -> None:
        self._ended.value = 1
        self.work()

    # --- the refiner's side ------------------------------------------------------------------------------------------

    def rest_at_signal(self) -> None:
        """Rest from now on, whenever the signal comes."""
        signal.signal(_REST, lambda *_: self._rest())
        signal.raise_signal(_REST)

    def over(self) -> bool:
        """Whether the refiner is to end, as it is when the worker's process died."""
        worker = multiprocessing.parent_process()
        return bool(self._ended.value) or (worker is not None and not worker.is_alive())

    def sleep(self, seconds: float) -> None:
        """Time that passes only while the refiner works."""
        until = seconds
        while until > 0 and not self.over():
            time.sleep(min(_SLICE_S, until))
            until -= _SLICE_S

    def _rest(self) -> None:
        engines = psutil.Process().children()
        for engine in engines:
            engine.suspend()
        self._resting.value = 1
        while not self._working.value and not self.over():
            time.sleep(_POLL_S)
        for engine in engines:
            engine.resume()


class _RefinerBeside:
    """The refiner's process, from the worker's side; at rest when entered."""

    def __init__(self, settings: RunSettings, latency: Latency) -> None:
        self._switch = _Switch()
        self._told, tell = multiprocessing.get_context("spawn").Pipe(duplex=False)
        self._process = multiprocessing.get_context("spawn").Process(
            target=_refine, args=(settings, latency, self._switch, tell), name="refiner"
        )

    def __enter__(self) -> _RefinerBeside:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._switch.end()
        self._process.join(10.0)
        self._process.kill()

    def wait(self) -> None:
        """Until it rests."""
        until = time.monotonic() + _START_S
        while not self._switch.resting:
            if not self._process.is_alive() or time.monotonic() > until:
                raise WorkerError("the refiner's process died, or does not answer", "its error is printed above")
            time.sleep(_POLL_S)

    def work(self) -> None:
        """Go on."""
        self._switch.work()

    def rest(self) -> None:
        """Stop, and wait until it has."""
        if not self._switch.resting and self._process.pid is not None:
            self._switch.rest(self._process.pid)
            self.wait()

    def stop(self) -> dict[str, Any]:
        """End it; returns what it did."""
        self._switch.end()
        if not self._told.poll(_START_S):
            raise WorkerError("the refiner's process does not end", "its error is printed above")
        return dict(self._told.recv())


def _refine(settings: RunSettings, latency: Latency, switch: _Switch, tell: Connection) -> None:
    """The refiner's process: works through the shipped decisions, again and again, until told to end."""
    env = make_env(settings.grid)
    engine = DecisionEngine(env, settings.grid)
    domain = domain_of(settings.grid)
    pending = [
        PendingRefinement(number, -1, seed.snapshot, seed.played, "seed", distance=seed.distance)
        for number, seed in enumerate(read_seeds(settings.grid, engine.catalogue.hash, domain))
    ]
    client = _client(settings, latency, switch)
    try:
        proposer = LanguageProposer(client, Actor.of(env, engine, settings.language), settings.language)
        did = {"questions": 0, "outcomes": 0}
        _counted(proposer, "propose", did, "questions")
        ids, begun = itertools.count(), _cpu_s()
        switch.rest_at_signal()
        while not switch.over():
            # Each pass has a comparator of its own: one remembers what it has replayed.
            comparator = make_comparator(env, engine)
            _counted(comparator, "outcome", did, "outcomes")
            refiner = Refiner(
                domain, comparator, proposer, settings, reserve=lambda n: next(ids) * n, stopped=switch.over
            )
            for item in pending:
                for _ in refiner.refine([item]):
                    pass
        tell.send({**did, "cpu_s": _cpu_s() - begun})
    finally:
        client.close()


def _counted(owner: Any, method: str, counts: dict[str, int], name: str) -> None:
    """Count the calls of a method of this one object."""
    call: Callable[..., Any] = getattr(owner, method)

    def run(*args: Any, **kwargs: Any) -> Any:
        counts[name] += 1
        return call(*args, **kwargs)

    setattr(owner, method, run)


def _client(settings: RunSettings, latency: Latency, switch: _Switch) -> Client:
    if latency == "engine":
        return LocalClient(settings.llm.engine, None, settings.llm)
    seconds, turn = latency, itertools.cycle(range(1, settings.language.candidates + 1))

    def answer(_: Request) -> str:
        switch.sleep(seconds)
        return json.dumps({"analysis": "", "why_bad": "", "action": {"candidate": next(turn)}})

    return FakeClient(answer)


def _cpu_s() -> float:
    """CPU seconds of this process and its children so far."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(t.user + t.system for t in times)
