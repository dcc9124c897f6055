"""Made-up cases of many grids, for a model's first lessons in reading.

Sizes, numbering, loadings, list lengths and layouts vary far more than on one real grid. The answer is what the
prompt ends with, the action of least danger that is unlike what has failed, so these cases teach how a prompt is read
and a reply is written. What survives is taught by verified labels alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ace_ray.finetune.examples import Example, LabelledCase, random_date
from ace_ray.grid.loading import COLLAPSE
from ace_ray.language.view import (
    CandidateView,
    CaseView,
    DeadLineView,
    GridFacts,
    LineView,
    MaintenanceView,
    OutageView,
    SubstationView,
)

_WORDS = (
    *("line", "lines", "substation", "candidate", "danger", "losing", "bus", "load", "generator", "after", "would"),
    *("bring", "step", "steps", "rank", "least", "what", "left", "black", "went", "grid", "survived", "return"),
    *("to", "of", "%", ":", ";", ",", ".", "(", ")", "-"),
)
_ALIKE = 0.2  # share of candidates with the effect of another
_GAIN = 2  # percent points of after-outage loading by which an action must beat do-nothing in an insecure state


def copying_lesson(rng: np.random.Generator) -> Example:
    """A string of numbers and of the prompts' words, and its repetition: keeps a model copying exactly."""
    numbers = rng.integers(0, np.where(rng.random(int(rng.integers(8, 48))) < 0.3, 1000, 130))
    words = rng.choice(_WORDS, size=numbers.size)
    shown = np.where(rng.random(words.size) < 0.75, numbers.astype(str), words)
    text = " ".join(shown.tolist())
    return Example([{"role": "user", "content": text}], text)


class SyntheticCases:
    """An endless source of made-up labelled cases.

    Args:
        rng: decides everything.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self._count = 0

    def draw(self, brief: bool = False) -> LabelledCase:
        """The next case; a brief one has few candidates and nothing that the answer does not need."""
        rng = self.rng
        self._count += 1
        facts = self._facts()
        kind = "overloaded" if rng.random() < 0.5 else "insecure"
        base = int(rng.normal(104, 6)) if kind == "overloaded" else int(rng.uniform(60, 95))
        base_outage = COLLAPSE if rng.random() < 0.15 else max(base + 1, int(rng.normal(125, 25)))
        candidates = self._candidates(
            facts, kind, base, base_outage, int(rng.integers(2, 9) if brief else rng.integers(4, 15))
        )
        loaded = self._loaded(facts, base, candidates[0].line)
        case = CaseView(
            facts=facts,
            when=random_date(rng),
            kind=kind,
            step=int(rng.integers(2000)),
            demand_mw=int(rng.integers(300, 5000)),
            loaded=loaded,
            dead=tuple(self._dead(facts) for _ in range(int(rng.integers(3)))),
            outages=self._outages(facts, candidates[0]),
            substations=tuple(self._substation(facts) for _ in range(int(rng.integers(1, 4)))),
            cooling_substations=self._waits(facts.substations, 4),
            cooling_lines=self._waits(facts.lines, 13),
            maintenance=self._maintenance(facts) if rng.random() < 0.2 else (),
            accompany=tuple(rng.integers(facts.lines, size=int(rng.random() < 0.1)).tolist()),
            candidates=candidates,
        )
        if brief:
            listed = tuple(self._brief(c) for c in candidates)
            case = replace(case, loaded=loaded[:1], dead=(), outages=(), substations=(), candidates=listed)
            case = replace(case, cooling_substations=(), cooling_lines=(), maintenance=(), accompany=())
        played = case.candidates[int(rng.integers(len(candidates)))]
        return LabelledCase(f"synthetic-{self._count}", case, played, {})

    def _brief(self, candidate: CandidateView) -> CandidateView:
        """The same in few words: a short action, and of its effect the highest loading and the danger."""
        if candidate.id != 0:
            text = f"substation {self.rng.integers(40)}: line {self.rng.integers(99)} to bus 2"
            candidate = replace(candidate, text=text)
        return replace(candidate, over=0, outage_percent=-1, outage_line=-1, else_percent=-1)

    def _facts(self) -> GridFacts:
        rng = self.rng
        if rng.random() < 0.5:  # the default grid's sizes, so that its rules are read most often
            subs, lines, gens, loads = 36, 59, 22, 37
        else:
            subs = int(rng.integers(14, 121))
            lines, gens, loads = int(subs * rng.uniform(1.4, 1.8)), int(subs * 0.6), subs
        outages = tuple(sorted(rng.permutation(lines)[:10].tolist()))
        return GridFacts(subs, lines, gens, loads, outages, attack_steps=int(rng.choice((0, 12, 24, 48))))

    def _line(self, facts: GridFacts) -> int:
        return int(self.rng.integers(facts.lines))

    def _ends(self, facts: GridFacts) -> tuple[int, int]:
        a, b = self.rng.integers(facts.substations, size=2).tolist()
        return a, b

    def _loaded(self, facts: GridFacts, base: int, line: int) -> tuple[LineView, ...]:
        rng = self.rng
        falls = np.cumsum(np.concatenate([[0], rng.integers(0, 8, size=int(rng.integers(1, 5)))]))
        return tuple(
            LineView(
                line if i == 0 else self._line(facts),
                self._ends(facts),
                max(1, int(base - fall)),
                int(rng.integers(1, 4)) if base - fall > 100 and rng.random() < 0.7 else 0,
            )
            for i, fall in enumerate(falls)
        )

    def _dead(self, facts: GridFacts) -> DeadLineView:
        return DeadLineView(self._line(facts), self._ends(facts), int(self.rng.integers(13)))

    def _outages(self, facts: GridFacts, nothing: CandidateView) -> tuple[OutageView, ...]:
        worst = nothing.outage_percent
        others = sorted((int(self.rng.integers(80, max(81, min(worst, 180)))) for _ in range(2)), reverse=True)
        views = [OutageView(nothing.outage_line, worst)]
        views += [OutageView(int(self.rng.choice(facts.outages)), p) for p in others if p > 100]
        return tuple(views)

    def _substation(self, facts: GridFacts) -> SubstationView:
        rng = self.rng
        names = [f"load {rng.integers(facts.loads)}" for _ in range(int(rng.integers(2)))]
        names += [f"generator {rng.integers(facts.generators)}" for _ in range(int(rng.integers(3)))]
        names += [f"line {n}" for n in rng.permutation(facts.lines)[: int(rng.integers(3, 9))]]
        split = rng.random() < 0.4
        buses = tuple((1 + (rng.random(len(names)) < 0.4) if split else np.ones(len(names))).astype(int).tolist())
        return SubstationView(int(rng.integers(facts.substations)), tuple(names), buses)

    def _waits(self, size: int, longest: int) -> tuple[tuple[int, int], ...]:
        count = int(self.rng.integers(3)) if self.rng.random() < 0.5 else 0
        return tuple((int(self.rng.integers(size)), int(self.rng.integers(1, longest))) for _ in range(count))

    def _maintenance(self, facts: GridFacts) -> tuple[MaintenanceView, ...]:
        steps = 12 * int(self.rng.integers(1, 13))
        return tuple(MaintenanceView(line, wait, steps) for line, wait in self._waits(facts.lines, 49))

    def _text(self, facts: GridFacts) -> str:
        rng = self.rng
        line = self._line(facts)
        draw = rng.random()
        if draw < 0.08:
            a, b = self._ends(facts)
            return f"disconnect line {line} ({a}-{b})"
        if draw < 0.12:
            a, b = self._ends(facts)
            return f"reconnect line {line} ({a}-{b}) at buses {rng.integers(1, 3)}-{rng.integers(1, 3)}"
        lines = ", ".join(str(n) for n in rng.permutation(facts.lines)[: int(rng.integers(1, 5))])
        moved = f"line{'s' if ',' in lines else ''} {lines}"
        if rng.random() < 0.4:
            moved += f", load {rng.integers(facts.loads)}"
        if rng.random() < 0.4:
            moved = f"generator {rng.integers(facts.generators)}, {moved}"
        return f"substation {rng.integers(facts.substations)}: {moved} to bus {1 if rng.random() < 0.15 else 2}"

    def _candidates(
        self, facts: GridFacts, kind: str, base: int, base_outage: int, count: int
    ) -> tuple[CandidateView, ...]:
        rng = self.rng
        ids = np.concatenate([[0], 1 + rng.permutation(60_000)[:count]])
        spread = rng.uniform(2, 20)
        dangers = self._dangers(len(ids))
        views: list[CandidateView] = []
        for i, action in enumerate(ids):
            if i > 1 and rng.random() < _ALIKE:
                like = views[int(rng.integers(i))]
                views.append(replace(like, id=int(action), text=self._text(facts), danger=dangers[i]))
                continue
            percent = base if i == 0 else max(30, int(rng.normal(base - 0.3 * spread, spread)))
            outage, rest = self._outage(percent, base_outage, spread, nothing=i == 0)
            score = -percent / 100 if kind == "overloaded" else -outage / 100
            if kind == "insecure" and i == 0:
                score += _GAIN / 100
            views.append(
                CandidateView(
                    int(action),
                    "do nothing" if i == 0 else self._text(facts),
                    percent,
                    self._line(facts),
                    0 if percent <= 100 else int(rng.integers(1, 5)),
                    outage,
                    int(rng.choice(facts.outages)),
                    round(score + (1e-4 if i == 0 else 0.0), 4),
                    rest,
                    dangers[i],
                )
            )
        return (views[0], *sorted(views[1:], key=lambda v: -v.score))

    def _dangers(self, count: int) -> list[int]:
        """Dangers of candidates: moves of one substation do nearly the same, so ties are the rule."""
        rng = self.rng
        least, spread = int(rng.lognormal(2.6, 1.0)), rng.uniform(1, 50)
        groups = least + np.abs(rng.normal(0, spread, size=int(rng.integers(2, 6))))
        own = groups[rng.integers(groups.size, size=count)]
        apart = np.where(rng.random(count) < 0.5, 0, rng.integers(0, 5, size=count))
        return [int(d) for d in np.minimum(own + apart, 200)]

    def _outage(self, percent: int, base: int, spread: float, nothing: bool) -> tuple[int, int]:
        """After-outage loading of a candidate, and of the other outages where the worst one is a collapse (else -1)."""
        rng = self.rng
        if base >= COLLAPSE and (nothing or rng.random() < 0.8):
            return COLLAPSE, max(percent, int(rng.normal(115, 15)))
        if nothing:
            return base, -1
        return max(percent, int(rng.normal(min(base, 160) - spread, 2 * spread))), -1
