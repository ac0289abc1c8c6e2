"""Watches over a machine beside its report: its state, what it says on its console, and that its addresses last."""

from baker.aws.instances import ENDED
from baker.bake import console
from baker.bake.launch import RunningMachine, sign
from baker.context import BakeContext
from baker.errors import BakeError, ReclaimedError

STATUS_EVERY = 5  # polls of the bucket for each one of the instance
CONSOLE_EVERY = 30  # polls of the bucket for each look at the console
IMPAIRED_POLLS = 3  # in a row: a status check that fails once may be a glitch
UNDELIVERED_LOOKS = 4  # at a console with a verdict, while no report arrives


class Watch:
    """Over one machine, while its launcher follows it."""

    def __init__(self, context: BakeContext, machine: RunningMachine) -> None:
        self._context = context
        self._machine = machine
        self._signer = machine.signer
        self._impaired = 0
        self._undelivered = 0
        self._said = ""

    def ended(self, polls: int) -> bool:
        """Whether the machine has ended, as far as it is time to look at the `polls`-th poll.

        Raises ReclaimedError if its host is broken, and BakeError if it says that it is done and no report arrives.
        """
        if polls % STATUS_EVERY:
            return False
        status = self._context.machines.status(self._machine.instance)
        if status.state in ENDED:
            return True
        self._impaired = self._impaired + 1 if status.impaired else 0
        if self._impaired == IMPAIRED_POLLS:
            raise ReclaimedError(f"the machine {self._machine.instance} fails AWS' status checks")
        self._renew_addresses()
        if polls % CONSOLE_EVERY == CONSOLE_EVERY - STATUS_EVERY:
            self._read_console()
        return False

    def _renew_addresses(self) -> None:
        """Sign the machine's addresses again once the credentials are others than those that signed them."""
        signer = self._context.bucket.signer()
        if signer != self._signer:
            left = (self._machine.deadline - self._context.now()).total_seconds()
            self._signer = sign(self._context, self._machine.task, self._machine.attempt, max(left, 0.0))

    def _read_console(self) -> None:
        instance = self._machine.instance
        words = console.read(self._context.machines.console(instance), self._machine.attempt)
        if words.last and words.last != self._said:
            self._said = words.last
            self._context.display.note(f"  the machine says: {words.last}", "dim")
        self._undelivered = self._undelivered + 1 if words.verdict else 0
        if self._undelivered == UNDELIVERED_LOOKS:
            raise BakeError(
                f"the machine {instance} says {words} on its console, but its report does not arrive: "
                "the addresses that it was given may have ended with the credentials that signed them"
            )
