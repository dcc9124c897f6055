"""The catalogue: every unitary topology action of a grid, with stable ids.

Id 0 does nothing. Then come five ids a line: disconnect it, or reconnect it on each pair of buses (origin, extremity)
= (1, 1), (1, 2), (2, 1), (2, 2) (docs/method.md). Then every `set_bus` partition of every substation, in the order
of Grid2Op's `get_all_unitary_topologies_set`, which counts 66,810 of them on the 36-substation grids.

A partition is one integer: bit `n - 1 - j` says that element j of the n elements of its substation is on bus 2. So
enumeration, legality and comparison with the present topology are integer arithmetic on all ids at once.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ace_ray.config.errors import GridMismatchError
from ace_ray.grid import grid2op_internals as internals
from ace_ray.grid.observation import GridObservation
from ace_ray.grid.physics.model import IntArray

NOOP, LINE, SUBSTATION = 0, 1, 2
_PER_LINE = 5
_PAIRS = ((1, 1), (1, 2), (2, 1), (2, 2))
_SWITCHED = np.array([(-1, -1), *_PAIRS], np.int8)  # buses of a line's ends after each of its five switches
_MOST_ELEMENTS = 30  # of one substation: codes are int32


class Catalogue:
    """All actions as packed arrays; N ids, S substations, L lines, T elements (`dim_topo`).

    Attributes:
        size: N.
        hash: Digest of the grid's names and layout and of every action; equal hashes mean equal ids.
        kind: int8 [N]: 0 do-nothing, 1 line switch, 2 substation.
        substation: int16 [N]: substation of a substation action, else -1.
        line: int16 [N]: line of a line switch, else -1.
        code: int32 [N]: partition of a substation action (see module docstring), else 0.
        positions: For each substation the positions of its elements in `topo_vect`.
        offsets: int32 [S + 1]: substation s owns the ids `offsets[s]` to `offsets[s + 1] - 1`.
    """

    def __init__(
        self, grid: Any, action_space: Any, max_substations: int, max_lines: int, least_attack: int = 0
    ) -> None:
        """Use `from_env`. `grid` has Grid2Op's class attributes (names, positions in `topo_vect`).

        `least_attack`: steps that every attack lasts after its first one, where the cooldown does not show it.
        """
        if grid.n_busbar_per_sub != 2:
            raise GridMismatchError(
                f"the catalogue is for two buses per substation; this grid has {grid.n_busbar_per_sub}",
                "build the environment with n_busbar=2",
            )
        self._new_action, self._nothing = action_space, action_space()
        self._max_substations, self._max_lines = max_substations, max_lines
        self._alert_lines, self._least_attack = np.asarray(grid.alertable_line_ids, dtype=np.int64), least_attack
        self._n_sub, self._n_line, self._dim = int(grid.n_sub), int(grid.n_line), int(grid.dim_topo)
        self._or_pos = np.asarray(grid.line_or_pos_topo_vect)
        self._ex_pos = np.asarray(grid.line_ex_pos_topo_vect)
        self._is_line_end = np.zeros(self._dim, dtype=bool)
        self._is_line_end[self._or_pos] = self._is_line_end[self._ex_pos] = True
        self._sub_of = np.repeat(np.arange(self._n_sub), grid.sub_info)  # [T]
        self.positions = np.split(np.arange(self._dim), np.cumsum(grid.sub_info)[:-1])
        if max(len(p) for p in self.positions) > _MOST_ELEMENTS:
            raise GridMismatchError(
                f"a substation has more than {_MOST_ELEMENTS} elements", "choose another environment"
            )
        # weight[t]: the bit of element t within its substation's code
        self._weight = np.concatenate([1 << np.arange(len(p) - 1, -1, -1) for p in self.positions]).astype(np.int32)
        self._line_mask = self._sum_bits(self._is_line_end)  # [S] bits of branch ends
        self._injection_mask = self._sum_bits(~self._is_line_end)  # [S] bits of loads, generators, storage
        ends = self._sub_of[self._or_pos], self._sub_of[self._ex_pos]
        # [2, L, 4] nodes (2 * substation + bus - 1) of a line's ends once it is reconnected on each pair of buses
        self._closed = np.stack([2 * sub[:, None] + bus - 1 for sub, bus in zip(ends, np.array(_PAIRS).T, strict=True)])
        self._enumerate()
        self._element_names = self._names(grid)
        self.hash = self._digest(grid)

    @classmethod
    def from_env(cls, env: Any) -> "Catalogue":
        """The catalogue of a Grid2Op environment (36 substations: 67,106 ids in about 10 ms)."""
        if "set_bus" not in env.action_space.subtype.authorized_keys:
            raise GridMismatchError(
                f"environment '{env.name}' allows no topology actions (set_bus)", "choose another environment"
            )
        parameters = env.parameters
        # an opponent of several areas renews its attacks step by step: a cooldown says 0 while they last
        areas = internals.opponent_areas(env)
        least_attack = min((internals.least_attack_duration(area) for area in areas), default=0)
        most = parameters.MAX_SUB_CHANGED, parameters.MAX_LINE_STATUS_CHANGED
        return cls(type(env), env.action_space, *most, least_attack)

    # -- building ---------------------------------------------------------------------------------------------------

    def _enumerate(self) -> None:
        codes = [self._partitions(s) for s in range(self._n_sub)]
        counts = np.array([len(c) for c in codes])
        first = 1 + _PER_LINE * self._n_line
        self.offsets = np.concatenate([[first], first + np.cumsum(counts)]).astype(np.int32)
        self.size = int(self.offsets[-1])
        self.code = np.zeros(self.size, dtype=np.int32)
        self.code[first:] = np.concatenate(codes)
        self.kind = np.full(self.size, SUBSTATION, dtype=np.int8)
        self.kind[0], self.kind[1:first] = NOOP, LINE
        self.substation = np.full(self.size, -1, dtype=np.int16)
        self.substation[first:] = np.repeat(np.arange(self._n_sub), counts)
        self.line = np.full(self.size, -1, dtype=np.int16)
        self.line[1:first] = np.repeat(np.arange(self._n_line), _PER_LINE)
        for array in (self.code, self.kind, self.substation, self.line, self.offsets):
            array.flags.writeable = False

    def _partitions(self, substation: int) -> np.ndarray:
        """int32 codes of a substation: element 0 on bus 1, every used bus with at least one branch end."""
        n = len(self.positions[substation])
        lines = int(self._line_mask[substation])
        codes = np.arange(1 << (n - 1), dtype=np.int32)
        on_second = codes & lines
        codes = codes[(codes == 0) | ((on_second != 0) & (on_second != lines))]
        return codes if len(codes) > 1 and lines else codes[:0]  # one topology alone is no choice

    def _sum_bits(self, chosen: np.ndarray) -> np.ndarray:
        """int32 [S]: bits of the chosen elements (bool [T]) of each substation."""
        return np.bincount(self._sub_of, weights=self._weight * chosen, minlength=self._n_sub).astype(np.int32)

    def _digest(self, grid: Any) -> str:
        digest = hashlib.sha256()
        for names in (grid.name_sub, grid.name_line, grid.name_load, grid.name_gen, grid.name_storage):
            digest.update("\n".join(map(str, names)).encode() + b"\0")
        layout = (grid.sub_info, self._or_pos, self._ex_pos, grid.load_pos_topo_vect, grid.gen_pos_topo_vect)
        for array in (*layout, grid.storage_pos_topo_vect, self.offsets, self.code):
            digest.update(np.ascontiguousarray(array, dtype=np.int64).tobytes())
        return digest.hexdigest()[:32]

    # -- what is legal now ------------------------------------------------------------------------------------------

    def legal(self, obs: GridObservation, ids: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Which ids may be played now; bool [N], or for the given ids only.

        Masked: what is on cooldown; a line that is known to be attacked, in maintenance or about to be (its switch
        would be undone in the same step); reconnecting a live line or to an empty bus, disconnecting a dead one;
        whatever leaves a load, generator or storage unit on a bus without a branch; a substation action that changes
        nothing, the two bus labels swapped included. Id 0 is always legal.
        """
        chosen = np.arange(self.size) if ids is None else np.asarray(ids, dtype=np.int64).reshape(-1)
        kind = self.kind[chosen]
        legal, lines, substations = kind == NOOP, kind == LINE, kind == SUBSTATION
        if lines.any() and self._max_lines > 0:
            legal[lines] = self._legal_switches(obs).reshape(-1)[chosen[lines] - 1]
        if substations.any() and self._max_substations > 0:
            legal[substations] = self._legal_partitions(obs, chosen[substations])
        return legal

    def _legal_switches(self, obs: GridObservation) -> np.ndarray:
        """bool [L, 5]: disconnect, and reconnect on (1,1), (1,2), (2,1), (2,2)."""
        topo, status = obs.topo_vect, obs.line_status
        free = obs.time_before_cooldown_line == 0
        free &= (obs.time_next_maintenance != 0) & (obs.time_next_maintenance != 1)
        if self._least_attack:
            since = obs.time_since_last_attack
            free[self._alert_lines[(since >= 0) & (since <= self._least_attack)]] = False
        node = self._sub_of * 2 + topo - 1  # [T] node of each element; wrong where topo is -1, never read there
        live = topo > 0
        branches = np.bincount(node[live & self._is_line_end], minlength=2 * self._n_sub)
        others = np.bincount(node[live & ~self._is_line_end], minlength=2 * self._n_sub)
        legal = np.zeros((self._n_line, _PER_LINE), dtype=bool)
        strands = np.zeros(self._n_line, dtype=bool)
        for pos in (self._or_pos, self._ex_pos):
            at = np.where(status, node[pos], 0)
            strands |= (branches[at] == 1) & (others[at] > 0)
        legal[:, 0] = free & status & ~strands
        used = (branches + others) > 0
        legal[:, 1:] = (free & ~status)[:, None] & used[self._closed].all(axis=0)
        return legal

    def _legal_partitions(self, obs: GridObservation, ids: np.ndarray) -> np.ndarray:
        sub, code = self.substation[ids], self.code[ids]
        live = self.live_bits(obs.topo_vect)[sub]
        now = self._sum_bits(obs.topo_vect == 2)[sub]
        lines, others = self._line_mask[sub] & live, self._injection_mask[sub] & live
        second = code & live
        first = live & ~code
        fed = ((second & others) == 0) | ((second & lines) != 0)
        fed &= ((first & others) == 0) | ((first & lines) != 0)
        return fed & (second != now) & (first != now) & (obs.time_before_cooldown_sub == 0)[sub]

    def distinct(self, obs: GridObservation) -> np.ndarray:
        """bool [N]: the legal ids, one for each different effect.

        While a line is dead its end counts for nothing, so several ids of a substation do the same. Kept is the one
        that leaves dead ends on bus 1 and the first live element on bus 1.
        """
        mask = self.legal(obs)
        live = self.live_bits(obs.topo_vect)
        full = self._line_mask | self._injection_mask
        for s in np.flatnonzero((live != full) & (self.offsets[1:] > self.offsets[:-1])):
            rows = slice(self.offsets[s], self.offsets[s + 1])
            leading = 1 << (int(live[s]).bit_length() - 1) if live[s] else 0
            mask[rows] &= (self.code[rows] & ~live[s] & full[s] == 0) & (self.code[rows] & leading == 0)
        return mask

    # -- from ids to Grid2Op and back -------------------------------------------------------------------------------

    def action(self, ids: Sequence[int], obs: GridObservation) -> Any:
        """The Grid2Op action that plays these ids together now.

        What is not legal now is left out: an id that `legal` masks, a second substation or line where the rules
        allow one, and the entries of dead lines in a substation action (Grid2Op #693: they would make it a
        reconnection, and the whole action illegal). A reconnection that goes along with a move that empties its bus
        takes the other bus. Doing nothing is one action, made once: it must not be changed.
        """
        wanted = [int(i) for i in ids if self.kind[i] != NOOP]
        playable = [i for i, ok in zip(wanted, self.legal(obs, wanted), strict=True) if ok] if wanted else []
        if not playable:
            return self._nothing
        action = self._new_action()
        buses = np.zeros(self._dim, dtype=np.int32)
        substations = list(dict.fromkeys(i for i in playable if self.kind[i] == SUBSTATION))[: self._max_substations]
        for i in substations:
            where = self.positions[self.substation[i]]
            buses[where] = np.where(obs.topo_vect[where] > 0, self.buses(i), 0)
        switches: dict[int, int] = {}
        for i in playable:
            if self.kind[i] == LINE and len(switches) < self._max_lines:
                switches.setdefault(int(self.line[i]), (i - 1) % _PER_LINE)
        after = np.where(buses > 0, buses, obs.topo_vect)
        for line, column in switches.items():
            ends = (self._or_pos[line], self._ex_pos[line])
            if column == 0:
                action.set_line_status = [(line, -1)]
                buses[list(ends)] = 0  # disconnecting and moving the same end would be ambiguous
            else:
                for end, bus in zip(ends, _PAIRS[column - 1], strict=True):
                    used = bool((after[self.positions[self._sub_of[end]]] == bus).any())
                    buses[end] = bus if used else 3 - bus
        if buses.any():
            action.set_bus = buses
        return action

    def buses(self, action_id: int) -> np.ndarray:
        """int8 [n]: the bus (1 or 2) of each element of a partition's substation, in the order of `positions`."""
        where = self.positions[self.substation[action_id]]
        return 1 + ((self.code[action_id] & self._weight[where]) != 0).astype(np.int8)

    def live_bits(self, topo: np.ndarray) -> np.ndarray:
        """int32 [S]: the bits of each substation's elements that are in service in a topology [T]."""
        return self._sum_bits(topo > 0)

    def bus_rows(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """int8 [n, T]: target bus of each element; 0 where untouched, -1 at both ends of a disconnection."""
        chosen = np.asarray(ids, dtype=np.int64).reshape(-1)
        rows = np.zeros((len(chosen), self._dim), dtype=np.int8)
        kind = self.kind[chosen]
        partitions, switches = np.flatnonzero(kind == SUBSTATION), np.flatnonzero(kind == LINE)
        ids = chosen[partitions]
        on_second = (self.code[ids, None] & self._weight) != 0
        rows[partitions] = (self.substation[ids, None] == self._sub_of) * (np.int8(1) + on_second)
        line, buses = self.line[chosen[switches]], _SWITCHED[(chosen[switches] - 1) % _PER_LINE]
        rows[switches, self._or_pos[line]], rows[switches, self._ex_pos[line]] = buses.T
        return rows

    def topologies_after(
        self, topo: IntArray, ids: Sequence[int] | NDArray, reconnected: Sequence[int] = ()
    ) -> NDArray[np.int32]:
        """Topology vectors [n, T] after each id: one answer for screen, AC check and features.

        Args:
            topo: [T] topology that the ids are played in.
            ids: [n] catalogue ids. A partition leaves lines out of service as they are.
            reconnected: Lines that are in service in `topo` because they are reconnected in the same step. Their ends
                stay on the bus of the reconnection whatever the partition says, unless it leaves nothing else there:
                then they take the other bus.
        """
        chosen = np.asarray(ids, np.int64).reshape(-1)
        rows = self.bus_rows(chosen)
        switch = self.kind[chosen] == LINE
        after = np.where((rows != 0) & ((topo > 0) | switch[:, None]), rows, topo).astype(np.int32)
        for line in reconnected:
            for end in (self._or_pos[line], self._ex_pos[line]):
                s, bus = self._sub_of[end], topo[end]
                at = np.flatnonzero((self.kind[chosen] == SUBSTATION) & (self.substation[chosen] == s))
                others = self.positions[s][self.positions[s] != end]
                used = (after[np.ix_(at, others)] == bus).any(axis=1)
                after[at, end] = np.where(used, bus, 3 - bus)
        return after

    def find(self, substation: int, buses: Sequence[int]) -> int | None:
        """Id of the partition of a substation, or None where the catalogue has none.

        Args:
            substation: Index of the substation.
            buses: Bus of each of its elements in the order of `positions`; the labels may be swapped, and what is
                neither 1 nor 2 (a dead line) counts as the first element's bus.
        """
        if not 0 <= substation < self._n_sub or len(buses) != len(self.positions[substation]):
            return None
        given = np.asarray(buses)
        known = given[(given == 1) | (given == 2)]
        first = given[0] if given[0] in (1, 2) else (known[0] if len(known) else 1)
        second = (given != first) & ((given == 1) | (given == 2))
        code = int(self._weight[self.positions[substation]][second].sum())
        start, end = self.offsets[substation], self.offsets[substation + 1]
        at = start + int(np.searchsorted(self.code[start:end], code))
        return int(at) if at < end and self.code[at] == code else None

    def find_line(self, line: int, status: int, or_bus: int = 1, ex_bus: int = 1) -> int | None:
        """Id of a line switch: `status` <= 0 disconnects, else reconnects on the two buses; None if there is none."""
        if not 0 <= line < self._n_line:
            return None
        if status <= 0:
            return 1 + _PER_LINE * line
        if (or_bus, ex_bus) not in _PAIRS:
            return None
        return 2 + _PER_LINE * line + _PAIRS.index((or_bus, ex_bus))

    def reference(self, substation: int) -> int | None:
        """Id that puts a whole substation on bus 1, or None where it has a single topology."""
        start, end = self.offsets[substation], self.offsets[substation + 1]
        return int(start) if end > start else None

    def describe(self, action_id: int) -> dict:
        """What an id does, as plain JSON types; the same words name elements everywhere."""
        kind = int(self.kind[action_id])
        if kind == NOOP:
            return {"kind": "do-nothing", "substation": None, "line": None, "assignment": {}}
        if kind == LINE:
            line, column = int(self.line[action_id]), (action_id - 1) % _PER_LINE
            buses = (-1, -1) if column == 0 else _PAIRS[column - 1]
            names = (f"line {line} origin", f"line {line} extremity")
            verb = "disconnect" if column == 0 else "reconnect"
            return {"kind": verb, "substation": None, "line": line, "assignment": dict(zip(names, buses, strict=True))}
        sub = int(self.substation[action_id])
        names_buses = zip(self.element_names(sub), map(int, self.buses(action_id)), strict=True)
        return {"kind": "substation", "substation": sub, "line": None, "assignment": dict(names_buses)}

    def element_names(self, substation: int) -> list[str]:
        """Names of a substation's elements in the order of `positions`: `line 5 origin`, `load 3`, `generator 2`."""
        return [self._element_names[position] for position in self.positions[substation]]

    def _names(self, grid: Any) -> list[str]:
        """[T] names of all elements, kept in place of the grid: the environment's class cannot be pickled."""
        kinds = (
            ("load {}", grid.load_pos_topo_vect),
            ("generator {}", grid.gen_pos_topo_vect),
            ("storage {}", grid.storage_pos_topo_vect),
            ("line {} origin", self._or_pos),
            ("line {} extremity", self._ex_pos),
        )
        named = {int(position): name.format(i) for name, table in kinds for i, position in enumerate(table)}
        return [named[position] for position in range(self._dim)]
