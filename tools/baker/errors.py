"""The launcher's errors, by exit code. Every message is one line for the person at the terminal."""

DENIALS = frozenset({"UnauthorizedOperation", "AccessDenied", "AccessDeniedException"})


class UsageError(Exception):
    """The command, the configuration or the tree is wrong: nothing was created. Exit code 2."""


class BakeError(Exception):
    """A bake was tried and failed; whatever it had created is gone. Exit code 1."""


class AwsError(BakeError):
    """An AWS call failed; `code` is AWS's error code, such as `UnauthorizedOperation`.

    `transient`: the same call may succeed later (an outage, a lost connection, too many requests).
    `logged_out`: the credentials are not there, not valid, or have ended.
    `mend`: what to do about it, which the text ends with; `told` is the text without it.
    """

    def __init__(
        self, message: str, code: str = "", *, transient: bool = False, logged_out: bool = False, mend: str = ""
    ) -> None:
        super().__init__(f"{message}; {mend}" if mend else message)
        self.code = code
        self.told = message
        self.mend = mend
        self.transient = transient
        self.logged_out = logged_out

    @property
    def denied(self) -> bool:
        """Whether the caller lacks the right to make the call."""
        return self.code in DENIALS


class KeptError(BakeError):
    """A bake failed, and its `machine` is kept to be looked at."""

    def __init__(self, message: str, machine: str) -> None:
        super().__init__(message)
        self.machine = machine


class ReclaimedError(BakeError):
    """AWS reclaimed the machine, or its host is broken. The bake is not at fault: another machine may succeed."""


class UnfinishedError(BakeError):
    """What a bake waits for goes on without it: nothing is removed, and `resume` waits for it again."""


class RejectedError(BakeError):
    """A machine's signal is not a success; the message says why."""


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM: not an Exception, so that no handler of ordinary failures swallows it."""
