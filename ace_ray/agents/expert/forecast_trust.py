"""What the next step's injections will be: the forecast, as far as the forecasts of the last steps came true.

Forecasts of loads are good wherever we have looked. Those of generation are not: in some data they say nothing of the
next step, and nobody says which. So each load and each generator is followed by itself: the change that was forecast is
taken by the share of it that came true, which is the least-squares slope of the changes that were seen on those that
were forecast. What is then missing in the balance falls to the generators whose forecasts say little.
"""

import numpy as np

from ace_ray.grid.forecast import Injections, foretold
from ace_ray.grid.observation import GridObservation
from ace_ray.grid.physics.model import FloatArray

_MEMORY = 0.95  # weight of a step against the step after it: about 20 steps count
_LITTLE = 1e-3  # sum of squared changes (MW², MVAr²) under which nothing is known of a forecast


class Trust:
    """Follows the forecasts of one episode."""

    def __init__(self) -> None:
        self._now: Injections | None = None
        self._foreseen: Injections | None = None

    def see(self, obs: GridObservation) -> Injections:
        """What the injections of the step after `obs` will be; call it once with each observation of an episode."""
        now, foreseen = Injections(np.array(obs.load_p), np.array(obs.load_q), np.array(obs.gen_p)), foretold(obs)
        if self._now is None or self._foreseen is None:
            self._matched, self._squared = ([np.zeros(len(values)) for values in now] for _ in range(2))
        else:
            for i, (after, before, said) in enumerate(zip(now, self._now, self._foreseen, strict=True)):
                change = said - before
                self._matched[i] = _MEMORY * self._matched[i] + (after - before) * change
                self._squared[i] = _MEMORY * self._squared[i] + change**2
        self._now, self._foreseen = now, foreseen
        load, reactive, generation = (x + w * (f - x) for x, f, w in zip(now, foreseen, self.shares(), strict=True))
        return Injections(load, reactive, self._balanced(now, load, generation))

    def shares(self) -> list[FloatArray]:
        """Share of the forecast changes that came true, 0 to 1, of active and reactive loads and of generation."""
        return [
            np.where(squared > _LITTLE, np.clip(matched / np.maximum(squared, _LITTLE), 0.0, 1.0), 1.0)
            for matched, squared in zip(self._matched, self._squared, strict=True)
        ]

    def _balanced(self, now: Injections, load: FloatArray, generation: FloatArray) -> FloatArray:
        """Generation that follows the load: the rest by present output, where the forecast is not trusted."""
        rest = (load - now.load_p).sum() - (generation - now.gen_p).sum()
        free = (1.0 - self.shares()[2]) * now.gen_p
        return generation + rest * free / free.sum() if free.sum() > abs(rest) else generation
