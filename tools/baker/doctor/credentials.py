"""Whose credentials these are, and whether they live as long as a bake."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from baker.aws.account import Account
from baker.aws.client import aws_errors
from baker.context import BakeContext
from baker.doctor.finding import FAILS, NOTE, OK, Finding
from baker.errors import AwsError

FIXED = frozenset({"env", "explicit", "shared-credentials-file", "config-file"})  # ways that nothing renews
RENEW = "use a profile whose credentials renew themselves (a role, or `aws configure sso`), or log in again just before"


HOME = "us-east-1"  # a region that no account has to enable


def identity(context: BakeContext) -> Iterator[Finding]:
    """Who calls."""
    try:
        caller = Account(context.clients).identity()
    except AwsError as error:
        raise explained(context, error) from None
    yield Finding("identity", OK, caller)


def explained(context: BakeContext, error: AwsError) -> AwsError:
    """The same error, unless a region refuses these keys only because it is not enabled for the account: says that."""
    region = context.config.aws.region
    if not error.logged_out or not error.code or region == HOME:
        return error
    try:
        if Account(context.clients_in(HOME)).opted_in([region])[region]:
            return error
    except AwsError:  # the keys are refused there as well
        return error
    mend = f"`aws account enable-region --region-name {region}`, or name another in [aws] region"
    told = f"the region {region} is not enabled for this account, and takes no keys of it ({error.code})"
    return AwsError(told, error.code, logged_out=True, mend=mend)


def life(context: BakeContext) -> Iterator[Finding]:
    """How long the credentials live; asks AWS nothing, unless they are a role's, which are fetched."""
    credentials = context.clients.credentials
    if credentials is None:
        yield Finding("credentials", FAILS, "there are none", "set AWS_PROFILE or [aws] profile, or log in")
        return
    with aws_errors("credentials"):
        keys = credentials.get_frozen_credentials()
    method = str(getattr(credentials, "method", ""))
    end = getattr(credentials, "_expiry_time", None)  # botocore has no other way to ask
    if not keys.token:
        yield Finding("credentials", OK, f"a key that does not end ({method})")
    elif end is None:
        yield Finding("credentials", NOTE, "a session's token, and nothing tells when it ends", RENEW)
    elif method not in FIXED:
        yield Finding("credentials", OK, f"until {_time(end)}, renewed by themselves ({method})")
    else:
        yield _fixed(context, end)


def _fixed(context: BakeContext, end: Any) -> Finding:
    """Credentials that end once and for all."""
    minutes = context.config.bake.deadline_minutes
    needed = context.now() + timedelta(minutes=minutes)
    if end < needed:
        detail = f"they end at {_time(end)}, and a machine begun now may need them until {_time(needed)}"
        return Finding("credentials", FAILS, detail, RENEW)
    return Finding("credentials", OK, f"until {_time(end)}")


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%H:%M} UTC"
