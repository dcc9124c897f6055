"""The errors that every room may raise.

Each one names what is wrong and what to do about it; `ace` prints the message alone and exits with `exit_code`.
"""


class AceError(Exception):
    """A problem that the user can fix.

    Args:
        problem: What is wrong, naming the field, file or process.
        remedy: What to change or run; printed on a line of its own.
    """

    exit_code = 2

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}\n  remedy: {self.remedy}" if self.remedy else self.problem


class ConfigError(AceError):
    """An unknown or impossible setting."""


class DataError(AceError):
    """A data set, chronic or scenario that is missing or cannot be used."""


class GridMismatchError(AceError):
    """A checkpoint, export or snapshot made for another grid or another catalogue."""


class RunFolderError(AceError):
    """A run folder that is in use, missing, full or not a run."""


class ResourceError(AceError):
    """The profile asks for more CPU, GPU or memory than the cluster has."""


class ShardError(AceError):
    """A torn or foreign replay shard."""


class WorkerError(AceError):
    """A worker process that died; names its role and node, and the last error that it reported."""

    exit_code = 3
