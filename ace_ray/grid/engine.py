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
from ace_ray.grid.attacks import Opponent
from ace_ray.grid.candidates import MASKED_SCORE, Candidates, Evaluation
from ace_ray.grid.features import context_feature_names, context_features, slot_feature_names, slot_features
from ace_ray.grid.game import GameRules
from ace_ray.grid.grid2op_internals import power_grid
from ace_ray.grid.physics.ac_check import AcCheck
from ace_ray.grid.physics.catalogue import LINE, Catalogue
from ace_ray.grid.physics.effect import topologies_after
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

    def critical(self, obs: Any) -> str | None:
        """'overloaded', 'insecure' or None (nothing to decide), by the predicate of the settings."""
        critical = self.settings.critical
        if critical.predicate != INSECURE and float(obs.rho.max()) >= critical.rho_overloaded:
            return OVERLOADED
        if critical.predicate == OVERLOADED or obs.current_step % critical.insecure_every:
            return None
        return None if self.secure(obs) else INSECURE

    def secure(self, obs: Any) -> bool:
        """Whether no credible outage takes any line to `rho_insecure`."""
        return float(self.worst_outage(obs).max(initial=0.0)) < self.settings.critical.rho_insecure

    def worst_outage(self, obs: Any) -> FloatArray:
        """[O] worst rho after each credible outage (linear), in the order of `security.lines`."""
        return self.security.worst_now(self.linearise(GridState.from_observation(self.model, obs)))

    def linearise(self, state: GridState) -> Linearisation:
        """The linear model around a state; its factors are cached by topology."""
        return self._factors.linearise(state)

    def exact_outage(self, obs: Any, ids: Sequence[int] = (0,)) -> FloatArray:
        """[n, O] worst rho after each action and outage by AC power flow; slow (20 microseconds a pair and more)."""
        self.check.load(obs)
        return self.security.exact(self.check, np.asarray(ids, np.int64))

    # -- deciding -----------------------------------------------------------------------------------------------------

    def decide(self, obs: Any, proposals: Sequence[int] = (), rng: np.random.Generator | None = None) -> Decision:
        """Candidates for the observation.

        Args:
            obs: Complete observation; need not be critical.
            proposals: Catalogue ids that get a slot whatever the screen thinks of them (masked if illegal now).
            rng: Draws the exploratory slots; None: none, the decision is then a function of the observation.
        """
        return self._decide(obs, proposals, rng, None)

    def decision_of(self, obs: Any, ids: Iterable[int]) -> Decision:
        """Scores and features of given ids, in the given order after do-nothing; at most K - 1 of them."""
        wanted = [int(i) for i in dict.fromkeys(ids) if i > 0][: self.spec.slots - 1]
        return self._decide(obs, (), None, np.array([0, *wanted], np.int64))

    def ids_for(self, decision: Decision, slot: int) -> tuple[int, ...]:
        """Catalogue ids to play for a slot: its own, and the reconnection that goes along unless it is a switch."""
        chosen = int(decision.ids[slot])
        if chosen < 0:
            return (0,)
        return (chosen,) if self.catalogue.kind[chosen] == LINE else (chosen, *decision.accompany)

    def action(self, ids: Sequence[int], obs: Any) -> Any:
        """The Grid2Op action that plays these ids now."""
        return self.catalogue.action(ids, obs)

    def set_memory(self, ids: Iterable[int]) -> None:
        """Replace the proposal memory."""
        self.memory = sorted({int(i) for i in ids if 0 < i < self.catalogue.size})

    def _decide(
        self, obs: Any, proposals: Sequence[int], rng: np.random.Generator | None, fixed: NDArray | None
    ) -> Decision:
        overloaded = self._kind(obs) == OVERLOADED
        state = GridState.from_observation(self.model, obs)
        here = self.linearise(state)
        self.check.load(obs)
        accompany = self.accompany(obs)
        before: Evaluation | None = None
        there = here
        if accompany:
            there, before = self._reconnected(obs, here, accompany, overloaded, fixed, proposals)
            accompany = accompany if there is not here else ()
        if fixed is None:
            tan = tangent(self.model, there.factors, self.check.point()) if overloaded and self.check.ready else None
            shortlist = self.candidates.shortlist(
                there, tan, obs, self._lines(accompany), overloaded, self.memory, proposals, rng
            )
            ids = shortlist.ids
            if before is not None:  # which has every switch that could be among them
                ids = ids[self.catalogue.kind[ids] != LINE]
        else:
            ids = fixed
        evaluation = self.evaluate(ids, there, obs, overloaded, self._lines(accompany))
        if before is not None:
            evaluation = evaluation.joined(before) if fixed is None else evaluation.replaced(before)
        rows = np.arange(ids.size) if fixed is not None else self.candidates.fill(evaluation, shortlist)
        return self._decision(obs, here, overloaded, evaluation.take(rows), accompany)

    def _kind(self, obs: Any) -> str:
        critical = self.settings.critical
        if critical.predicate == INSECURE:
            return INSECURE
        if critical.predicate == OVERLOADED or float(obs.rho.max()) >= critical.rho_overloaded:
            return OVERLOADED
        return INSECURE

    def accompany(self, obs: Any) -> tuple[int, ...]:
        """The reconnection that the rules would play, where a substation may be moved in the same step."""
        if not self._line_and_substation:
            return ()
        line = self.rules.reconnection(obs)
        return () if line is None else (line,)

    def _reconnected(
        self,
        obs: Any,
        here: Linearisation,
        accompany: tuple[int, ...],
        overloaded: bool,
        fixed: NDArray | None,
        proposals: Sequence[int],
    ) -> tuple[Linearisation, Evaluation | None]:
        """The state once the accompanying line is in, and the line switches evaluated before it (they go alone).

        Where the reconnected state has no power flow solution, the state stays and nothing accompanies.
        """
        switches = np.flatnonzero(self.catalogue.kind == LINE)
        wanted = np.asarray(proposals if fixed is None else fixed, np.int64)
        switches = switches[self.catalogue.legal(obs, switches) | np.isin(switches, wanted)]
        before = self.evaluate(switches, here, obs, overloaded)
        if not self.check.play(accompany):
            self.check.load(obs)
            return here, None
        return self.linearise(self.check.state(here.state)), before

    def _lines(self, switches: tuple[int, ...]) -> list[int]:
        return [int(self.catalogue.line[i]) for i in switches]

    def evaluate(
        self, ids: NDArray, lin: Linearisation, obs: Any, overloaded: bool, reconnected: Sequence[int] = ()
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
        after = topologies_after(self.model, self.catalogue, lin.state.topo, ids, reconnected)
        return self.candidates.evaluate(ids, rho, outage, usable, overloaded, obs, after)

    def _decision(
        self, obs: Any, here: Linearisation, overloaded: bool, chosen: Evaluation, accompany: tuple[int, ...]
    ) -> Decision:
        """Pad to K slots and compute features."""
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
            accompany=accompany,
        )
