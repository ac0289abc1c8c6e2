"""Whose credentials these are, and whether they live as long as a bake."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from baker.aws.account import Account
from baker.context import BakeContext
from baker.doctor.finding import FAILS, NOTE, OK, Finding

FIXED = frozenset({"env", "explicit", "shared-credentials-file", "config-file"})  # ways that nothing renews
RENEW = "use a profile whose credentials renew themselves (a role, or `aws configure sso`), or log in again just before"


def identity(context: BakeContext) -> Iterator[Finding]:
    """Who calls."""
    yield Finding("identity", OK, Account(context.clients).identity())


def life(context: BakeContext) -> Iterator[Finding]:
    """How long the credentials live; asks AWS nothing, unless they are a role's, which are fetched."""
    credentials = context.clients.credentials
    if credentials is None:
        yield Finding("credentials", FAILS, "there are none", "set AWS_PROFILE or [aws] profile, or log in")
        return
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
