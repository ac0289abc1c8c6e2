"""EC2's StateReason as its user guide has it: the true cause is found, and a fault of the client is not retried."""

import pytest
from baker.aws import mends
from baker.aws.state_reason import StateReason

VOLUMES = StateReason("Server.InternalError", "Client.VolumeLimitExceeded: Volume limit exceeded")
KEY = StateReason("Client.InternalError", "Client.InternalError: Client error on launch")
SNAPSHOT = StateReason("Server.InternalError", "Client.InvalidSnapshot.NotFound")
DISABLED = StateReason("Server.InternalError", "Client.InvalidKMSKey.InvalidState: The KMS key is disabled")
USER = StateReason("Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown")
HOST = StateReason("Server.InternalError", "Server.InternalError: Internal error on launch")
SPOT = StateReason("Server.SpotInstanceTermination", "Spot instance termination")


@pytest.mark.parametrize(
    ("reason", "cause", "again"),
    [
        (VOLUMES, "Client.VolumeLimitExceeded", False),
        (KEY, "Client.InternalError", False),
        (SNAPSHOT, "Client.InvalidSnapshot.NotFound", False),
        (DISABLED, "Client.InvalidKMSKey.InvalidState", False),
        (USER, "Client.UserInitiatedShutdown", False),
        (HOST, "Server.InternalError", True),
        (SPOT, "Server.SpotInstanceTermination", True),
        (StateReason(), "", False),
    ],
)
def test_the_cause_decides(reason: StateReason, cause: str, again: bool) -> None:
    assert (reason.cause, reason.reclaimed) == (cause, again)


def test_all_that_ec2_says_is_told_once() -> None:
    assert str(VOLUMES) == "Client.VolumeLimitExceeded: Volume limit exceeded (Server.InternalError)"
    assert str(KEY) == "Client.InternalError: Client error on launch"
    assert "EBS storage" in VOLUMES.mend
    assert "KMS" in KEY.mend
    assert "[launch] security_groups" in mends.mend("InvalidGroup.NotFound", "The security group 'sg-1' does not exist")
