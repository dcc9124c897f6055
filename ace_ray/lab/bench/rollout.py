"""`ace bench rollout`: whole greedy episodes, decisions included, against a bare Grid2Op loop with the same actions.

The bare loop is what anybody would write: the environment as `grid2op.make` builds it (LightSim backend, its own reader
of chronics and reward), `reset`, and `step` with the actions that the greedy episode played. Both play each scenario in
turn, in one process and on one core, so that a busy machine slows both.
"""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ace_ray.config.errors import DataError
from ace_ray.config.grid import GridSettings
from ace_ray.grid.decision_env import DecisionEnv
from ace_ray.grid.engine import Decision, DecisionEngine
from ace_ray.grid.scenarios.chronics import cached_bytes
from ace_ray.grid.scenarios.environment import make_env, make_stock_env
from ace_ray.grid.scenarios.scenario import Scenario, episode_length, reset_to
from ace_ray.grid.scenarios.scenario_sets import parse

_WHOLE = ("reset", "decide")  # what happens inside these is not told apart
PHASES = ("reset", "step", "observation", "predicate", "rules", "decide", "other")
_RESETS = 20
_WARM_UP = 300  # steps of each scenario played before anything is measured


class Stopwatch:
    """Wall time of phases; a phase inside another counts for the inner one alone, except inside a reset or decision."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what happens inside for `name`."""
        if self._open and self._open[-1] in _WHOLE:
            yield
            return
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def timed(self, name: str, call: Callable) -> Callable:
        """`call`, each run of it counted for `name`."""

        def run(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name):
                return call(*args, **kwargs)

        return run

    def _turn(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


def bench_rollout(settings: GridSettings, scenarios: str) -> dict[str, Any]:
    """Measure (see the module docstring).

    Args:
        settings: Grid and predicate.
        scenarios: Set of scenarios; each is played once by both.

    Returns:
        JSON-able, as docs/json.md says.

    Raises:
        DataError: The bare loop does not end where the greedy episode ended: the figures would mean nothing.
    """
    memory = {"before": resident_mb()}
    start = time.perf_counter()
    env = make_env(settings)
    built = time.perf_counter()
    engine = DecisionEngine(env, settings)
    ready = time.perf_counter()
    decision_env = DecisionEnv(env, engine, settings)
    chosen = parse(scenarios, settings).scenarios
    reset_to(env, chosen[0])
    reset = time.perf_counter()
    engine.decide(reset_to(env, chosen[0]))  # compiles
    decided = time.perf_counter()
    memory["ready"] = resident_mb()
    for scenario in chosen:  # every kernel is compiled, every chronic read
        greedy_episode(decision_env, replace(scenario, max_steps=min(episode_length(env, scenario), _WARM_UP)))
    bare_env = make_stock_env(settings, {scenario.chronic for scenario in chosen})
    watch, played, tape = Stopwatch(), _Actions(env), _Tape(engine)
    _attach(watch, env, engine)
    greedy_s = bare_s = given_s = 0.0
    steps = decisions = 0
    for scenario in tqdm(chosen, desc="bench rollout", unit="episode"):
        begun = time.perf_counter()
        with watch.phase("other"):
            decisions += greedy_episode(decision_env, scenario)
        greedy_s += time.perf_counter() - begun
        actions, end, seconds = list(played.actions), decision_env.grid_observation, dict(watch.seconds)
        begun = time.perf_counter()
        last = _bare_episode(bare_env, scenario, actions)
        bare_s += time.perf_counter() - begun
        with tape.playing():
            begun = time.perf_counter()
            greedy_episode(decision_env, scenario)
            given_s += time.perf_counter() - begun
        steps += len(actions)
        watch.seconds = dict(seconds)  # of the first play alone
        if any((obs.rho != end.rho).any() for obs in (last, decision_env.grid_observation)):
            raise DataError(f"played again, {scenario.key()} ends in another state", "please report this as a bug")
    resets = {
        "ours": _median_ms(lambda: reset_to(env, chosen[0])),
        "bare": _median_ms(lambda: reset_to(bare_env, chosen[0])),
    }
    return {
        "env": settings.env,
        "scenarios": scenarios,
        "steps": steps,
        "decisions": decisions,
        "steps_per_s": steps / greedy_s,
        "decisions_per_s": decisions / greedy_s,
        "bare_steps_per_s": steps / bare_s,
        "outside_decisions": bare_s / (greedy_s - seconds["decide"]),
        "without_search": bare_s / given_s,
        "shares": {name: spent / greedy_s for name, spent in seconds.items()},
        "reset_ms": {"first": 1e3 * (reset - ready), **resets},
        "start_s": {"environment": built - start, "engine": ready - built, "first_decision": decided - reset},
        "memory_mb": {**memory, "chronics": cached_bytes() / 2**20, "chronics_held": len({s.chronic for s in chosen})},
    }


def rollout_lines(result: dict[str, Any]) -> list[str]:
    """What `bench_rollout` found, as lines to print."""
    shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in result["shares"].items())
    reset, start, memory = result["reset_ms"], result["start_s"], result["memory_mb"]
    return [
        f"{result['env']}, greedy on {result['scenarios']}: {result['steps']} steps, {result['decisions']} decisions",
        f"{result['steps_per_s']:8.1f} environment steps a second, {result['decisions_per_s']:.1f} decisions a second",
        f"{result['bare_steps_per_s']:8.1f} steps a second of the bare loop with the same actions",
        f"{result['outside_decisions']:8.2f} speed outside decisions, as a share of the bare loop's "
        f"({result['without_search']:.2f} where decisions are handed over)",
        f"of the time: {shares}",
        f"reset: {reset['ours']:.1f} ms, the first {reset['first']:.1f} ms; bare {reset['bare']:.1f} ms",
        f"start: environment {start['environment']:.1f} s, engine {start['engine']:.1f} s, first decision "
        f"{start['first_decision']:.1f} s",
        f"memory: {memory['ready']:.0f} MB once ready, {memory['before']:.0f} MB before; "
        f"{memory['chronics']:.1f} MB for {memory['chronics_held']} chronics",
    ]


def resident_mb() -> float:
    """Memory of this process in MB: what it holds now (Linux), or the most that it held."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return pages * resource.getpagesize() / 2**20


class _Actions:
    """Notes the actions that an environment is stepped with since its last reset (which steps once by itself)."""

    def __init__(self, env: Any) -> None:
        self.actions: list[Any] = []
        step, reset = env.step, env.reset

        def noted_step(action: Any) -> Any:
            self.actions.append(action)
            return step(action)

        def noted_reset(*args: Any, **kwargs: Any) -> Any:
            first = reset(*args, **kwargs)
            self.actions.clear()
            return first

        env.step, env.reset = noted_step, noted_reset


class _Tape:
    """Notes the decisions of an engine, and hands them over again."""

    def __init__(self, engine: DecisionEngine) -> None:
        self._engine = engine
        self._noted: list[Decision] = []
        self._decide = engine.decide
        engine.decide = self._note  # type: ignore[method-assign]

    def _note(self, *args: Any, **kwargs: Any) -> Decision:
        self._noted.append(self._decide(*args, **kwargs))
        return self._noted[-1]

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Hand over what was noted since the last time."""
        noting, noted = self._engine.decide, iter(self._noted)
        self._noted = []
        self._engine.decide = lambda *args, **kwargs: next(noted)  # type: ignore[method-assign]
        try:
            yield
        finally:
            self._engine.decide = noting  # type: ignore[method-assign]


def _attach(watch: Stopwatch, env: Any, engine: DecisionEngine) -> None:
    """Time the phases of this environment and this engine; both are the bench's own."""
    for owner, method, phase in (
        (env, "reset", "reset"),
        (env, "step", "step"),
        (env, "get_obs", "observation"),
        (engine, "critical", "predicate"),
        (engine, "decide", "decide"),
        (engine.rules, "calm_action", "rules"),
    ):
        setattr(owner, method, watch.timed(phase, getattr(owner, method)))


def greedy_episode(env: DecisionEnv, scenario: Scenario) -> int:
    """Play to the end; returns the number of decisions."""
    state, info = env.reset(options={"scenario": scenario})
    decisions = 0
    while info["decision"] is not None:
        state, _, _, _, info = env.step(int(state["score"].argmax()))
        decisions += 1
    return decisions


def _bare_episode(env: Any, scenario: Scenario, actions: list[Any]) -> Any:
    """Play these actions; returns the last observation."""
    obs = reset_to(env, scenario)
    for action in actions:
        obs, *_ = env.step(action)
    return obs


def _median_ms(call: Callable[[], object]) -> float:
    times = []
    for _ in range(_RESETS):
        begun = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(times)
