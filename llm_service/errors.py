"""What the service may answer instead of a reply.

Three families, by what the caller can do: `ModelError` (the model or an adapter must be fixed), `Refused` (not now, or
not like this: costs one refinement, never an episode) and `DeadlineExceeded` (too late). They cross processes as plain
data (`protocol.Failure`), so that no exception has to survive pickling.
"""


class LLMServiceError(Exception):
    """A problem of the language-model service.

    Args:
        problem: What is wrong, in one line.
        remedy: What to change or run.
    """

    exit_code = 2

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}\n  remedy: {self.remedy}" if self.remedy else self.problem


class ModelError(LLMServiceError):
    """A base model that is missing, torn, too large for the machine, or an engine that does not start."""


class AdapterError(ModelError):
    """An adapter version that is missing, torn, of another base model or of a rank that the engine does not take."""


class Refused(LLMServiceError):  # noqa: N818 - an answer, named as the caller reads it
    """The service said no: its queue is full, the request is not one that it serves, or the replica went away."""


class Rejected(Refused):
    """The request itself is not taken, or was answered with nothing; asking the same again does not help.

    A client that gets nothing else several times in a row raises `ModelError` instead.
    """


class RequestTooLarge(Rejected):
    """Prompt and reply do not fit the limits in bytes or tokens."""


class ReplicaLost(Refused):
    """The replica or its engine died while the request was in flight; a new one is being started."""


class DeadlineExceeded(LLMServiceError):  # noqa: N818 - an answer, named as the caller reads it
    """No reply within the deadline; the request was aborted in the engine."""


def first_line(error: BaseException) -> str:
    """What an exception says, in one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
