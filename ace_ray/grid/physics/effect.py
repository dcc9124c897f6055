"""What a catalogue id makes of a topology: one answer for screen, AC check and features, as the catalogue plays it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ace_ray.grid.physics.catalogue import LINE, SUBSTATION, Catalogue
from ace_ray.grid.physics.model import GridModel, IntArray


def topologies_after(
    model: GridModel,
    catalogue: Catalogue,
    topo: IntArray,
    ids: Sequence[int] | NDArray,
    reconnected: Sequence[int] = (),
) -> NDArray[np.int32]:
    """Topology vectors [n, T] after each id.

    Args:
        topo: [T] topology that the ids are played in.
        ids: [n] catalogue ids. A partition leaves lines out of service as they are.
        reconnected: Lines that are in service in `topo` because they are reconnected in the same step. Their ends stay
            on the bus of the reconnection whatever the partition says, unless it leaves nothing else there: then they
            take the other bus.
    """
    chosen = np.asarray(ids, np.int64).reshape(-1)
    rows = catalogue.bus_rows(chosen)
    switch = catalogue.kind[chosen] == LINE
    after = np.where((rows != 0) & ((topo > 0) | switch[:, None]), rows, topo).astype(np.int32)
    for line in reconnected:
        for end in (model.line_or_pos[line], model.line_ex_pos[line]):
            s, bus = model.pos_sub[end], topo[end]
            at = np.flatnonzero((catalogue.kind[chosen] == SUBSTATION) & (catalogue.substation[chosen] == s))
            others = catalogue.positions[s][catalogue.positions[s] != end]
            used = (after[np.ix_(at, others)] == bus).any(axis=1)
            after[at, end] = np.where(used, bus, 3 - bus)
    return after
