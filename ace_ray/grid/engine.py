"""The decision engine: from an observation to K scored slots (docs/design.md).

A function of the observation and of a power-flow model of our own, made once from the environment: the same code serves
rollout, refiner, evaluation and an exported agent, where only observations exist.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ace_ray.config.grid import GridSettings
from ace_ray.grid.candidates import MASKED_SCORE, Candidates, Evaluation, Shortlist
from ace_ray.grid.features import context_feature_names, context_features, slot_feature_names, slot_features
from ace_ray.grid.grid2op_internals import power_grid
from ace_ray.grid.loading import percent, worst
from ace_ray.grid.observation import GridObservation
from ace_ray.grid.opponent import GameRules, Opponent
from ace_ray.grid.physics.ac_check import AcCheck
from ace_ray.grid.physics.catalogue import LINE, Catalogue
from ace_ray.grid.physics.kernels import ISLAND
from ace_ray.grid.physics.linear import FactorCache, Linearisation
from ace_ray.grid.physics.model import FloatArray, GridModel, GridState
from ace_ray.grid.physics.newton import tangent
from ace_ray.grid.physics.screen import Screen
from ace_ray.grid.physics.security import Security, attackable_lines
from ace_ray.grid.rules import Rules

OVERLOADED, INSECURE = "overloaded", "insecure"


@dataclass(frozen=True)
class EngineSpec:
    """Shapes of a decision: K slots of F features, C state features, L lines, O credible outages."""

    slots: int
    slot_features: int
    context_features: int
    lines: int
    outages: int


@dataclass(frozen=True)
class Decision:
    """What there is to choose from in one state. Empty slots come last, with id -1."""

    step: int  # environment step of the observation
    kind: str  # 'overloaded' | 'insecure'
    ids: NDArray[np.int32]  # [K] catalogue ids; slot 0 is do-nothing
    mask: NDArray[np.bool_]  # [K] slots that may be played: legal, and the grid survives them; slot 0 always
    score: NDArray[np.float32]  # [K] higher is better, argmax is greedy; -1e9 where masked
    slots: NDArray[np.float32]  # [K, F]
    context: NDArray[np.float32]  # [C]
    rho_after: NDArray[np.float32]  # [K, L]
    rho_outage: NDArray[np.float32]  # [K, O] worst rho after each credible outage
    accompany: tuple[int, ...]  # reconnections that go along with do-nothing or a substation slot

    def legal_slot(self, id: int) -> int | None:
        """The legal slot of a catalogue id, None where there is none."""
        slots = np.flatnonzero((self.ids == id) & self.mask)
        return int(slots[0]) if slots.size else None

    def standing(self, slot: int) -> tuple[int, float]:
        """How a slot compares with greedy's: 1 + the number of legal slots of higher score, and the best one's lead."""
        legal = self.score[self.mask]
        return 1 + int((legal > self.score[slot]).sum()), max(0.0, float(legal.max() - self.score[slot]))

    def effect(self, slot: int) -> tuple[int, int]:
        """Highest predicted loading after the slot's action, and after the worst credible outage on top, in percent.

        Actions of one effect mostly end alike (results/language-model.md). -1 where nothing is predicted.
        """
        rows = (np.asarray(rho[slot], dtype=float) for rho in (self.rho_after, self.rho_outage))
        after, outage = (percent(row[worst(row)]) if row.size else -1 for row in rows)
        return after, outage


@dataclass(frozen=True)
class _Start:
    """What a decision starts from."""

    obs: GridObservation
    overloaded: bool
    here: Linearisation  # the present state
    there: Linearisation  # the state that substation moves are played in: with the reconnection that goes along
    accompany: tuple[int, ...] = ()
    switches: Evaluation | None = None  # line switches, which go alone, evaluated in `here`; None: nothing goes along


class DecisionEngine:
    """Makes decisions out of observations.

    Args:
        env: Grid2Op environment with the LightSim backend; read once, here: its LightSim grid is copied and neither
            the environment nor its backend is used afterwards.
        settings: Predicate, candidates and rules.
    """

    def __init__(self, env: Any, settings: GridSettings) -> None:
        self.settings = settings
        if env.done:  # an episode that is over has neither grid nor limits, and has to be reset anyway
            env.reset()
        grid = power_grid(env).copy()
        self.model = GridModel.from_env(env, grid)
        self.catalogue = Catalogue.from_env(env)
        self.security = Security(self.model, settings.critical, attackable_lines(env))
        self.game = GameRules.from_env(env)
        self.opponent = Opponent.from_env(env, self.security.lines)
        self.screen = Screen(self.model, self.catalogue)
        self.candidates = Candidates(self.screen, self.catalogue, self.security, settings.candidates, settings.critical)
        # Who acts on overloads alone does not hold splits for security either.
        insecure_counts = settings.critical.predicate != OVERLOADED
        self.rules = Rules(self.catalogue, settings.rules, self.secure if insecure_counts else None)
        self.memory: list[int] = []
        self._factors = FactorCache(self.model)
        self.check = AcCheck(self.model, self.catalogue, grid, env.backend.prod_pu_to_kv)
        self._renewable = np.asarray(env.gen_renewable, bool)
        self._capacity = float(np.sum(env.gen_pmax))
        self._line_and_substation = env.parameters.MAX_SUB_CHANGED >= 1 and env.parameters.MAX_LINE_STATUS_CHANGED >= 1
        self.slot_feature_names = slot_feature_names(self.model, self.security.lines)
        self.context_feature_names = context_feature_names(self.model, self.security.lines)
        self.spec = EngineSpec(
            slots=settings.candidates.slots,
            slot_features=len(self.slot_feature_names),
            context_features=len(self.context_feature_names),
            lines=self.model.n_line,
            outages=int(self.security.lines.size),
        )

    # -- when to decide -----------------------------------------------------------------------------------------------

    def critical(self, obs: GridObservation) -> str | None:
        """'overloaded', 'insecure' or None (nothing to decide), by the predicate of the settings."""
        critical = self.settings.critical
        if critical.predicate != INSECURE and float(obs.rho.max()) >= critical.rho_overloaded:
            return OVERLOADED
        if critical.predicate == OVERLOADED or obs.current_step % critical.insecure_every:
            return None
        return None if self.secure(obs) else INSECURE

    def secure(self, obs: GridObservation) -> bool:
        """Whether no credible outage takes any line to `rho_insecure`."""
        return float(self.worst_outage(obs).max(initial=0.0)) < self.settings.critical.rho_insecure

    def worst_outage(self, obs: GridObservation) -> FloatArray:
        """[O] worst rho after each credible outage (linear), in the order of `security.lines`."""
        return self.security.worst_now(self.linearise(GridState.from_observation(self.model, obs)))

    def linearise(self, state: GridState) -> Linearisation:
        """The linear model around a state; its factors are cached by topology."""
        return self._factors.linearise(state)

    def exact_outage(self, obs: GridObservation, ids: Sequence[int] = (0,)) -> FloatArray:
        """[n, O] worst rho after each action and outage by AC power flow; slow (20 microseconds a pair and more)."""
        self.check.load(obs)
        return self.security.exact(self.check, np.asarray(ids, np.int64))

    # -- deciding -----------------------------------------------------------------------------------------------------

    def decide(
        self, obs: GridObservation, proposals: Sequence[int] = (), rng: np.random.Generator | None = None
    ) -> Decision:
        """Candidates for the observation.

        Args:
            obs: Complete observation; need not be critical.
            proposals: Catalogue ids that get a slot whatever the screen thinks of them (masked if illegal now).
            rng: Draws the exploratory slots; None: none, the decision is then a function of the observation.
        """
        start = self._start(obs, proposals)
        shortlist = self._shortlist(start, proposals, rng)
        evaluation = self._evaluated(start, shortlist)
        rows = self.candidates.fill(evaluation, shortlist)
        return self._decision(start, evaluation.take(rows))

    def ids_for(self, decision: Decision, slot: int) -> tuple[int, ...]:
        """Catalogue ids to play for a slot: its own, and the reconnection that goes along unless it is a switch."""
        chosen = int(decision.ids[slot])
        return (0,) if chosen < 0 else self.together(decision, chosen)

    def together(self, decision: Decision, id: int) -> tuple[int, ...]:
        """Catalogue ids that are played for `id`: a line switch goes alone."""
        return (int(id),) if self.catalogue.kind[id] == LINE else (int(id), *decision.accompany)

    def action(self, ids: Sequence[int], obs: GridObservation) -> Any:
        """The Grid2Op action that plays these ids now."""
        return self.catalogue.action(ids, obs)

    def set_memory(self, ids: Iterable[int]) -> None:
        """Replace the proposal memory."""
        self.memory = sorted({int(i) for i in ids if 0 < i < self.catalogue.size})

    def _start(self, obs: GridObservation, proposals: Sequence[int]) -> "_Start":
        """Loads the observation, and the reconnection that goes along where there is one.

        Where the reconnected state has no power flow solution, the state stays and nothing goes along.
        """
        overloaded = self._kind(obs) == OVERLOADED
        here = self.linearise(GridState.from_observation(self.model, obs))
        self.check.load(obs)
        accompany = self.accompany(obs)
        if not accompany:
            return _Start(obs, overloaded, here, here)
        switches = np.flatnonzero(self.catalogue.kind == LINE)
        switches = switches[self.catalogue.legal(obs, switches) | np.isin(switches, np.asarray(proposals, np.int64))]
        alone = self.evaluate(switches, here, obs, overloaded)
        if not self.check.play(accompany):
            self.check.load(obs)
            return _Start(obs, overloaded, here, here)
        return _Start(obs, overloaded, here, self.linearise(self.check.state(here.state)), accompany, alone)

    def _shortlist(self, start: "_Start", proposals: Sequence[int], rng: np.random.Generator | None) -> Shortlist:
        """What gets an AC check: ranked by one Newton step where the state is overloaded and has a solution."""
        tan = None
        if start.overloaded and self.check.ready:
            tan = tangent(self.model, start.there.factors, self.check.point())
        lines = self._lines(start.accompany)
        return self.candidates.shortlist(
            start.there, tan, start.obs, lines, start.overloaded, self.memory, proposals, rng
        )

    def _evaluated(self, start: "_Start", shortlist: Shortlist) -> Evaluation:
        """The shortlist, each action from the state that it is played in."""
        ids = shortlist.ids
        if start.switches is not None:  # it holds every switch that could be on the list
            ids = ids[self.catalogue.kind[ids] != LINE]
        found = self.evaluate(ids, start.there, start.obs, start.overloaded, self._lines(start.accompany))
        return found if start.switches is None else found.joined(start.switches)

    def _kind(self, obs: GridObservation) -> str:
        critical = self.settings.critical
        if critical.predicate == INSECURE:
            return INSECURE
        if critical.predicate == OVERLOADED or float(obs.rho.max()) >= critical.rho_overloaded:
            return OVERLOADED
        return INSECURE

    def accompany(self, obs: GridObservation) -> tuple[int, ...]:
        """The reconnection that the rules would play, where a substation may be moved in the same step."""
        if not self._line_and_substation:
            return ()
        line = self.rules.reconnection(obs)
        return () if line is None else (line,)

    def _lines(self, switches: tuple[int, ...]) -> list[int]:
        return [int(self.catalogue.line[i]) for i in switches]

    def evaluate(
        self, ids: NDArray, lin: Linearisation, obs: GridObservation, overloaded: bool, reconnected: Sequence[int] = ()
    ) -> Evaluation:
        """Exact flows after each action from the state that the AC check has loaded, linear outages from there.

        Args:
            ids: [n] catalogue ids.  lin: The loaded state.  obs: The observation it came from.
            overloaded: Kind of the state.  reconnected: Lines that are in service in `lin` because they accompany.
        """
        rows = self.screen.rows(lin, ids, self.security.lines, reconnected)
        if self.check.ready:
            checked = self.check.sweep(ids)
            rho, p, q, usable = checked.rho, checked.p_or, checked.q_or, checked.converged
        else:  # the present state itself has no solution in our model: the linear screen is all there is
            rho, p, q, usable = self.screen.rho(lin, rows), rows.flows, lin.reactive(rows.flows), rows.usable
        usable = usable | (ids == 0)
        rho = np.where(usable[:, None], rho, ISLAND)
        outage = self.security.worst_after(lin, rows, p, q, exact=self.check.ready)
        outage = np.where(usable[:, None], np.minimum(outage, ISLAND), ISLAND)
        after = self.catalogue.topologies_after(lin.state.topo, ids, reconnected)
        return self.candidates.evaluate(ids, rho, outage, usable, overloaded, obs, after)

    def _decision(self, start: "_Start", chosen: Evaluation) -> Decision:
        """Pad to K slots and compute features."""
        obs, here, overloaded = start.obs, start.here, start.overloaded
        n, spec = chosen.ids.size, self.spec
        playable = chosen.usable & chosen.legal
        playable[0] = True
        features = slot_features(
            self.model,
            self.catalogue,
            chosen.ids,
            chosen.after,
            chosen.moved,
            chosen.rho,
            chosen.outage,
            chosen.score,
            chosen.usable,
            here.state.rho,
        )
        ids, mask = np.full(spec.slots, -1, np.int32), np.zeros(spec.slots, bool)
        score = np.full(spec.slots, MASKED_SCORE, np.float32)
        slots = np.zeros((spec.slots, spec.slot_features), np.float32)
        rho, outage = np.zeros((spec.slots, spec.lines), np.float32), np.zeros((spec.slots, spec.outages), np.float32)
        ids[:n], mask[:n], slots[:n], rho[:n], outage[:n] = chosen.ids, playable, features, chosen.rho, chosen.outage
        score[:n][playable] = chosen.score[playable]
        worst = self.security.worst_now(here)
        return Decision(
            step=int(obs.current_step),
            kind=OVERLOADED if overloaded else INSECURE,
            ids=ids,
            mask=mask,
            score=score,
            slots=slots,
            context=context_features(self.model, obs, worst, overloaded, self._renewable, self._capacity),
            rho_after=rho,
            rho_outage=outage,
            accompany=start.accompany,
        )
