"""Why EC2 ended an instance, and what can be done about it.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/troubleshooting-launch.html
"""

import re
from dataclasses import dataclass

from baker.aws import mends

# AWS took the machine back, or had no host for it: another machine may succeed.
RECLAIMED = frozenset({
    "Server.SpotInstanceTermination", "Server.SpotInstanceShutdown", "Server.InsufficientInstanceCapacity",
    "Server.InternalError", "Server.ScheduledStop",
})  # fmt: skip
SHUT_ITSELF_DOWN = "Client.InstanceInitiatedShutdown"
CAUSE = re.compile(r"((?:Client|Server)(?:\.\w+)+)(?::\s*)?")


@dataclass(frozen=True)
class StateReason:
    """EC2's StateReason. A launch that fails may have the code `Server.InternalError` and its true cause, such as
    `Client.VolumeLimitExceeded`, at the beginning of the message.
    """

    code: str = ""
    message: str = ""

    @property
    def cause(self) -> str:
        """The most telling code; empty when EC2 said nothing."""
        named = CAUSE.match(self.message)
        return named[1] if named else self.code

    @property
    def reclaimed(self) -> bool:
        """Whether another machine may succeed; what is the client's fault would fail again."""
        return self.cause in RECLAIMED

    @property
    def mend(self) -> str:
        """What to do about it; empty when that is not known."""
        return mends.of_launch(self.cause)

    def __str__(self) -> str:
        """Everything that EC2 said, each word once."""
        text = self.message if CAUSE.match(self.message) else ": ".join(filter(None, (self.code, self.message)))
        return text if not self.code or self.code in text else f"{text} ({self.code})"
