"""The exceptions that a job tells without its own traceback: the user's mistakes, and what befell workers."""


class UserError(ValueError):
    """A mistake in what the user gave; jobs print it as one line and exit with 2.

    Args:
        setting: the recipe key, command-line option or file that is wrong, as the user writes it.
        problem: what was expected and what came.
        mend: what to do about it.
    """

    def __init__(self, setting: str, problem: str, mend: str) -> None:
        super().__init__(setting, problem, mend)
        self.setting = setting

    def __str__(self) -> str:
        setting, problem, mend = self.args
        return f"{setting}: {problem}; {mend}"

    @classmethod
    def from_message(cls, message: str) -> "UserError":
        """The error out of its own message, as another process printed it."""
        setting, _, rest = message.partition(": ")
        problem, _, mend = rest.rpartition("; ")
        return cls(setting, problem, mend)


class WorkerError(RuntimeError):
    """A worker failed; the message names its rank and host and holds its own traceback."""


class WorkerLost(WorkerError):
    """A worker died or stopped answering; the same work may succeed when it is done again."""
