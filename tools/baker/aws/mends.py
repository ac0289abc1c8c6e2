"""What a person can do about what AWS refuses, by AWS' code and words. For keys see `logins`."""

from baker.errors import DENIALS

KEY = (
    "this is most often the disk's KMS key: it must be enabled, and let you use it for EC2 (kms:CreateGrant); "
    "[image] kms_key, or the account's default key for EBS"
)
SIGN_UP = "finish its sign-up in AWS' console (payment, telephone); a new account may take a day to be ready"
SUSPENDED = "look at Billing in AWS' console, and ask AWS Support"
QUOTA = "`bake.py doctor` names the quota and the command that asks for more"
RIGHTS = "`bake.py plan --policy` prints the rights that this takes (`plan --help`: of roll-outs and fleets)"
# The whole account is refused, whatever it asks for.
ACCOUNT = {
    "OptInRequired": SIGN_UP,
    "SubscriptionRequiredException": SIGN_UP,
    "NotSignedUp": SIGN_UP,
    "PendingVerification": "wait some hours for AWS' mail that says it is verified, else ask AWS Support",
    "Blocked": SUSPENDED,
    "AccountProblem": SUSPENDED,
    "AllAccessDisabled": SUSPENDED,
}
OTHERS = {  # by how a code begins
    "VolumeLimitExceeded": "remove volumes, or ask for more EBS storage in Service Quotas",
    "VcpuLimitExceeded": QUOTA,
    "InstanceLimitExceeded": QUOTA,
    "MaxSpotInstanceCountExceeded": QUOTA,
    "Client.InternalError": KEY,
    "InvalidKMSKey": KEY,
    "InvalidSubnetID": "name subnets of this region in [instance] subnets or [launch] subnets",
    "InvalidGroup": "name a security group of this region in [instance] security_group or [launch] security_groups",
    "InvalidSnapshot": "the image's snapshot is gone or not shared with you: name another image in [source]",
}
TERMS = "marketplace"  # in the words about an image whose terms nobody has accepted
SAID = {  # by words that come with a code of many meanings
    "not eligible for Free Tier": (
        "the account is on AWS' free plan, which has no such machines: upgrade it in Billing in AWS' console"
    ),
    "Invalid IAM Instance Profile": "make the instance profile that [fleet] profile or [instance] profile names",
}
DENIED = {  # by AWS' words: whose policy it is
    "service control policy": "no right of this account helps: ask who administers your organization",
    "resource control policy": "no right of this account helps: ask who administers your organization",
    "permissions boundary": "the permissions boundary of this user or role must allow it as well",
    "VPC endpoint policy": "the policy of the VPC endpoint that this computer uses must allow it as well",
}
UNSAID = f"{RIGHTS}; if you have them, CloudTrail has AWS' reason, for `aws sts decode-authorization-message`"


def of_account(code: str, message: str) -> bool:
    """Whether AWS refuses the account itself, and so everything that it asks for."""
    return code in ACCOUNT and TERMS not in message.lower()


def mend(code: str, message: str, *, encoded: bool = False) -> str:
    """What to do about a refusal; `encoded`: AWS gave its reason in a form that is not told. Empty: not known."""
    if of_account(code, message):
        return ACCOUNT[code]
    if code in ACCOUNT:
        return "accept the image's terms at that address, or name another image in [source]"
    if code in DENIALS:
        said = next((mend for words, mend in DENIED.items() if words in message), "")
        return said or (UNSAID if encoded and "is not authorized to" not in message else RIGHTS)
    return next((mend for words, mend in SAID.items() if words in message), "") or of_launch(code)


def of_launch(code: str) -> str:
    """The same by the code alone, as EC2 names the cause of a launch that fails."""
    names = (code, code.removeprefix("Client."))
    return next((mend for start, mend in OTHERS.items() if any(name.startswith(start) for name in names)), "")
