"""From the whole catalogue to K slots: shortlist by the linear screen, score after the AC check, order and fill.

Deterministic but for the exploratory slots, which are drawn only when a generator is given and never displace the best.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ace_ray.config.grid import CandidateSettings, CriticalSettings
from ace_ray.grid.observation import GridObservation
from ace_ray.grid.physics.catalogue import LINE, NOOP, Catalogue
from ace_ray.grid.physics.kernels import CERTAIN, ISLAND
from ace_ray.grid.physics.linear import Linearisation
from ace_ray.grid.physics.model import FloatArray, IntArray
from ace_ray.grid.physics.newton_kernels import Tangent
from ace_ray.grid.physics.screen import Screen
from ace_ray.grid.physics.security import Security

MASKED_SCORE = np.float32(-1e9)
RESOLUTION = 5  # decimals of a score: closer ones are ties, broken by elements moved, then by id


@dataclass(frozen=True)
class Shortlist:
    """What gets an AC check, do-nothing first. Sets may overlap."""

    ids: IntArray  # [n] distinct
    exploratory: frozenset[int]
    memory: frozenset[int]
    proposals: tuple[int, ...]


@dataclass(frozen=True)
class Evaluation:
    """What n actions do."""

    ids: IntArray  # [n]
    rho: FloatArray  # [n, L]
    outage: FloatArray  # [n, O]
    usable: NDArray[np.bool_]  # [n] the power flow converges
    legal: NDArray[np.bool_]  # [n]
    score: FloatArray  # [n] rounded to RESOLUTION; of unusable ones -ISLAND
    after: IntArray  # [n, T] topology
    moved: IntArray  # [n] elements whose bus is changed; 1 for a line switch

    def take(self, rows: NDArray) -> "Evaluation":
        """The chosen rows."""
        return Evaluation(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def joined(self, other: "Evaluation") -> "Evaluation":
        """The rows of both; no id may be in both."""
        names = [field.name for field in fields(self)]
        return Evaluation(**{name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in names})


def slot_scores(
    overloaded: bool,
    rho: FloatArray,
    outage: FloatArray,
    usable: NDArray[np.bool_],
    ids: IntArray,
    critical: CriticalSettings,
) -> FloatArray:
    """Slot scores (docs/design.md), higher is better.

    Overloaded: -(max rho after). Insecure: -(worst rho after any outage, or after the action itself if that is
    worse), and do-nothing gets `insecure_gain` on top, so that argmax leaves it only for an action that gains more
    than that. An action that takes a line to `rho_overloaded` at once loses `CERTAIN`: the outage it guards against
    may never come, the overload is there and the protections trip it in a few steps (greedy without this: 23 %
    instead of 47 % of the steps survived on 12 validation weeks).

    Args:
        rho: [n, L].  outage: [n, O].  usable: [n].  ids: [n].  critical: `insecure_gain`, `rho_overloaded`.
    """
    now = rho.max(axis=1, initial=0.0)
    worst = now
    if not overloaded:
        worst = np.maximum(now, outage.max(axis=1, initial=0.0)) + CERTAIN * (now >= critical.rho_overloaded)
    score = -np.where(usable, np.minimum(worst, ISLAND), ISLAND)
    if not overloaded:
        score = score + np.where(ids == 0, critical.insecure_gain, 0.0)
    return np.round(score, RESOLUTION)


class Candidates:
    """Chooses what fills the slots."""

    def __init__(
        self,
        screen: Screen,
        catalogue: Catalogue,
        security: Security,
        settings: CandidateSettings,
        critical: CriticalSettings,
    ) -> None:
        self.screen, self.catalogue, self.security = screen, catalogue, security
        self.settings, self.critical = settings, critical
        self._per_substation = max(1, int(settings.slots * settings.substation_share))
        self._keep = max(self._per_substation, int(settings.shortlist * settings.substation_share))

    def shortlist(
        self,
        lin: Linearisation,
        tan: Tangent | None,
        obs: GridObservation,
        reconnected: Sequence[int],
        overloaded: bool,
        memory: Sequence[int],
        proposals: Sequence[int],
        rng: np.random.Generator | None,
    ) -> Shortlist:
        """The ids worth an AC check in this state: the best of the screen, memory, proposals, exploration.

        `tan` is the state's AC linearisation, which ranks where the objective is the rho of here and now; without it
        (there is no AC solution) the DC one does.
        """
        explores = rng is not None and self.settings.exploratory > 0  # which draws from the whole list
        ids, _ = self.ranked(lin, tan, obs, reconnected, overloaded, 0 if explores else self.settings.shortlist)
        chosen = self._capped(ids)[: self.settings.shortlist]
        best = ids[chosen]
        exploratory: list[int] = []
        if rng is not None and explores:
            better = np.setdiff1d(ids[: (ids.size + 1) // 2], best)
            exploratory = rng.permutation(better)[: self.settings.exploratory].tolist()
        known = np.array(sorted(set(memory)), np.int64)
        known = known[self.catalogue.legal(obs, known)] if known.size else known
        explicit = tuple(dict.fromkeys(int(i) for i in proposals if i > 0))
        everything = dict.fromkeys([0, *explicit, *best.tolist(), *known.tolist(), *exploratory])
        return Shortlist(
            np.array(list(everything), np.int64), frozenset(exploratory), frozenset(known.tolist()), explicit
        )

    def ranked(
        self,
        lin: Linearisation,
        tan: Tangent | None,
        obs: GridObservation,
        reconnected: Sequence[int],
        overloaded: bool,
        most: int = 0,
    ) -> tuple[IntArray, FloatArray]:
        """Legal ids and their linear objective, best first: the best of each substation, and the line switches.

        With `most`, what is surely not among so many of the first (at most `_keep` of a substation) may be missing:
        much of it need not be looked through. Where lines are `reconnected` in `lin` there are no switches: they go
        alone, so from another state, where the engine has evaluated them.
        """
        free = self.screen.substations[obs.time_before_cooldown_sub[self.screen.substations] == 0]
        if overloaded and tan is not None:
            most = 0
            ids, rho = self.screen.rank_now(tan, lin.state.rho, self._keep, free)
        else:
            outages = None if overloaded else self.security.screen_order(lin)
            limit, most = self.critical.rho_overloaded, 0 if reconnected else most
            ids, rho = self.screen.rank(lin, self._keep, free, outages, limit, most=most)
        legal = self.catalogue.legal(obs, ids)
        if most and not legal.all():  # those left out may have been better than what takes the place of these
            return self.ranked(lin, tan, obs, reconnected, overloaded)
        if reconnected:  # a partition that would move the end of a reconnected line is the same as one that does not
            topo = lin.state.topo
            as_ranked = self.catalogue.topologies_after(topo, ids)
            as_played = self.catalogue.topologies_after(topo, ids, reconnected)
            legal &= (as_ranked == as_played).all(axis=1)
        ids, rho = ids[legal], rho[legal]
        if not reconnected:
            switches, after = self._ranked_switches(lin, obs, overloaded)
            ids, rho = np.concatenate([ids, switches]), np.concatenate([rho, after])
        order = np.lexsort((ids, rho))
        return ids[order].astype(np.int64), rho[order]

    def _ranked_switches(
        self, lin: Linearisation, obs: GridObservation, overloaded: bool
    ) -> tuple[IntArray, FloatArray]:
        """Legal line switches and their linear objective."""
        switches = np.flatnonzero(self.catalogue.kind == LINE)
        switches = switches[self.catalogue.legal(obs, switches)]
        rows = self.screen.rows(lin, switches, self.security.lines)
        after = self.screen.rho(lin, rows).max(axis=1, initial=0.0)
        if not overloaded and switches.size:
            outage = self.security.worst_after(lin, rows, rows.flows, lin.reactive(rows.flows), exact=False)
            too_much = CERTAIN * (after >= self.critical.rho_overloaded)
            after = np.maximum(after, outage.max(axis=1, initial=0.0)) + too_much
        return switches[rows.usable], after[rows.usable]

    def _capped(self, ids: IntArray) -> NDArray[np.int64]:
        """Indices of `ids` in order, at most `_keep` of each substation."""
        substation = self.catalogue.substation[ids]
        together = np.argsort(substation, kind="stable")
        place, starts = np.arange(ids.size), np.flatnonzero(np.diff(substation[together], prepend=-2))
        place[together] = place - np.repeat(starts, np.diff(starts, append=ids.size))
        return np.flatnonzero((place < self._keep) | (substation < 0)).astype(np.int64)

    def evaluate(
        self,
        ids: IntArray,
        rho: FloatArray,
        outage: FloatArray,
        usable: NDArray[np.bool_],
        overloaded: bool,
        obs: GridObservation,
        after: IntArray,
    ) -> Evaluation:
        """Scores and order keys of checked actions; after: [n, T] topologies."""
        score = slot_scores(overloaded, rho, outage, usable, ids, self.critical)
        moved = ((after != obs.topo_vect) & (after > 0) & (obs.topo_vect > 0)).sum(axis=1)
        moved = np.where(self.catalogue.kind[ids] == LINE, 1, moved)
        return Evaluation(ids, rho, outage, usable, self.catalogue.legal(obs, ids), score, after, moved)

    def fill(self, evaluation: Evaluation, shortlist: Shortlist) -> NDArray[np.int64]:
        """Rows of `evaluation` for the slots, do-nothing first, then by score; at most K.

        Proposals always are among them. Of one substation there are at most `substation_share` of the slots,
        proposals apart.
        """
        e, settings = evaluation, self.settings
        ranked = np.lexsort((e.ids, e.moved, -e.score))
        fine = e.usable & e.legal
        playable = ranked[(fine & (self.catalogue.kind[e.ids] != NOOP))[ranked]].tolist()
        ids, substations = e.ids.tolist(), self.catalogue.substation[e.ids].tolist()
        of = {i: r for r, i in enumerate(ids)}
        taken: dict[int, None] = dict.fromkeys(of[i] for i in shortlist.proposals)
        room = settings.slots - 1
        taken = dict.fromkeys(list(taken)[:room])
        count: dict[int, int] = {}

        def take(rows: Sequence[int], limit: int) -> None:
            for row in rows:
                if limit <= 0 or len(taken) >= room:
                    return
                substation = substations[row]
                if row in taken or (substation >= 0 and count.get(substation, 0) >= self._per_substation):
                    continue
                taken[row] = None
                count[substation] = count.get(substation, 0) + 1
                limit -= 1

        take(playable, room // 4)
        take([r for r in playable if ids[r] in shortlist.memory], settings.memory)
        take(playable, room - settings.exploratory - len(taken))
        take([r for r in playable if ids[r] in shortlist.exploratory], settings.exploratory)
        take(playable, room)
        order = [r for r in ranked.tolist() if r in taken]
        good = [r for r in order if fine[r]]
        return np.array([of[0], *good, *(r for r in order if not fine[r])], np.int64)
