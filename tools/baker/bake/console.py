"""What a machine says on its console: the second channel, for when its report cannot arrive."""

import hmac
from dataclasses import dataclass

from baker.bake.attempt import MachineAttempt

MARKER = "TRANSCRIBE-BAKE"
SAYS = "transcribe-bake: "  # how a line for the launcher begins


@dataclass(frozen=True)
class ConsoleWords:
    """The verdict that the machine printed, empty if none; and the last line that it meant for the launcher."""

    verdict: str = ""
    last: str = ""

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.verdict, self.last)))


def read(text: str, attempt: MachineAttempt) -> ConsoleWords:
    """What the machine of an attempt has printed on its console."""
    verdict = last = ""
    for line in text.splitlines():
        words = line.partition(MARKER)[2].split()
        if len(words) >= 3 and words[0] == attempt.id and hmac.compare_digest(words[1], attempt.nonce):
            verdict = words[2]
        if SAYS in line:
            last = "".join(c for c in line.partition(SAYS)[2].strip() if c.isprintable())[:300]
    return ConsoleWords(verdict, last)
