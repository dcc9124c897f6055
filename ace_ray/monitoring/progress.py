"""The line that a run prints about itself, and the same numbers as TensorBoard events."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Progress:
    """Where a run stands. Counts are totals since the run began, resumed parts included.

    Attributes:
        seconds: Training time so far; `budget_s` the time it may take, `budget_decisions` its decisions (None: open).
        decisions_per_s: Over the last interval.
        survival: Mean share of the steps survived over the latest training episodes, 0 to 1; None before the first.
        staleness: Learner updates by which the policy of the latest decisions was behind.
        asked, salvageable, accepted: Of the refinements; `refined` rows in D_LLM, `pending` decisions in the queue.
        adapters: Role -> version that it is served with.
    """

    seconds: float
    decisions: int
    decisions_per_s: float
    episodes: int
    updates: int
    staleness: float
    given_up: int = 0
    survival: float | None = None
    budget_s: float | None = None
    budget_decisions: int | None = None
    asked: int = 0
    salvageable: int = 0
    accepted: int = 0
    refined: int = 0
    pending: int = 0
    edits: int = 0
    adapters: Mapping[str, int] = field(default_factory=dict)


def progress_line(now: Progress) -> str:
    """Return one line: time, decisions, learning, refinement; every number with its unit or name."""
    of_time = f"/{duration(now.budget_s)}" if now.budget_s is not None else ""
    of_decisions = f"/{now.budget_decisions:,}" if now.budget_decisions is not None else ""
    survival = "-" if now.survival is None else f"{100 * now.survival:.0f} %"
    parts = [
        f"{duration(now.seconds)}{of_time}",
        f"{now.decisions:,}{of_decisions} decisions ({now.decisions_per_s:.1f}/s)",
        f"{now.episodes:,} episodes, survival {survival}",
        f"{now.updates:,} updates, staleness {now.staleness:.0f} updates",
    ]
    if now.asked or now.pending or now.refined:
        parts.append(
            f"refinements: {now.asked} asked, {now.salvageable} salvageable, {now.accepted} accepted, "
            f"{now.pending} pending, {now.refined} in D_LLM"
        )
    if now.given_up:
        parts.append(f"{now.given_up} episodes given up")
    if now.edits:
        parts.append(f"{now.edits} edits")
    if now.adapters:
        parts.append("adapters " + ", ".join(f"{role} v{version}" for role, version in sorted(now.adapters.items())))
    return " | ".join(parts)


def duration(seconds: float) -> str:
    """Return seconds as '45s', '3m05s' or '2h00m'."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class EventLog:
    """TensorBoard events under `<run>/metrics`.

    Args:
        folder: Where the event file goes; made where it is missing. A resumed run adds a file of its own.
    """

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # imports for a second; only a training run needs it

        self._writer = SummaryWriter(str(folder))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add `values` (name -> number) at `step`, the number of decisions so far."""
        for name, value in values.items():
            self._writer.add_scalar(name, float(value), step)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left and close the file."""
        self._writer.close()
