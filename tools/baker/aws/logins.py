"""Credentials that cannot carry a bake, and what a person can do when AWS does not take them."""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

import boto3
from botocore.credentials import ProcessProvider, RefreshableCredentials
from botocore.exceptions import (
    BotoCoreError,
    CredentialRetrievalError,
    MissingDependencyException,
    SSOError,
    TokenRetrievalError,
)
from botocore.utils import parse_timestamp

from baker.errors import UsageError

KEYS = "log in again, replace the keys{}, or enable the region {}"
OF_ENVIRONMENT = " of the environment (AWS_ACCESS_KEY_ID and so on), which come before any profile"
CLOCK = "set this computer's clock (in WSL: `sudo hwclock -s`)"
# Codes that say: not with these credentials.
REFUSALS = frozenset({
    "AuthFailure", "ExpiredToken", "ExpiredTokenException", "IncompleteSignature", "InvalidAccessKeyId",
    "InvalidClientTokenId", "InvalidSecurity", "InvalidSignatureException", "InvalidToken",
    "MissingAuthenticationToken", "RegionDisabledException", "RequestExpired", "RequestTimeTooSkewed",
    "SignatureDoesNotMatch", "TokenRefreshRequired", "UnrecognizedClientException",
})  # fmt: skip
SKEWED = re.compile(r"RequestTimeTooSkewed|Signature (expired|not yet current)")
REGION, METHOD = "Region", "Method"  # added to ResponseMetadata: the client's region, and how its keys were found
TOLERATED = 240.0  # seconds between two clocks; AWS tolerates 300 or more
EXPORT = 'eval "$(aws configure export-credentials --profile {} --format env)"'


PROGRAM_SECONDS = 60.0  # that a credential_process has: a person may have to touch a key
PROGRAMS: Any = ProcessProvider
RETRIEVE = PROGRAMS._retrieve_credentials_using


class LoginError(BotoCoreError):
    """A profile that gives no credentials now."""

    fmt = "{told}"


def mend(code: str, message: str, answer: Mapping[str, Any]) -> str:
    """What to do about a refusal, by its code, its words and botocore's ResponseMetadata; empty: not about keys."""
    if code not in REFUSALS:
        return ""
    behind = _seconds_behind(answer.get("HTTPHeaders", {}).get("date", ""))
    if abs(behind) > TOLERATED:
        how = "behind" if behind > 0 else "ahead of"
        return f"this computer's clock is {abs(behind) / 60:.0f} minutes {how} AWS': {CLOCK}"
    if SKEWED.search(f"{code} {message}"):
        return CLOCK
    return KEYS.format(OF_ENVIRONMENT * (answer.get(METHOD) == "env"), answer.get(REGION, "")).rstrip()


def _seconds_behind(date: str) -> float:
    """How far this computer's clock is behind that of an answer; 0 if the answer has none."""
    try:
        return (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return 0.0


def watch(session: boto3.Session) -> None:
    """From now on, a login by SSO that ends is told with the profile to log in to, and answers say from which region
    they are, and how the keys were found.

    Raises UsageError for a profile whose credentials a person must be asked for: nobody is there while a bake runs.
    """
    profiles = dict(_chain(session))
    PROGRAMS._retrieve_credentials_using = _given_by_program  # also for the profiles that it begins from
    try:
        credentials = session.get_credentials()
    except MissingDependencyException:  # `aws login`, which takes botocore's native library
        raise UsageError(_instead(session.profile_name, "is one of `aws login`")) from None
    session.events.register("after-call", partial(_note, getattr(credentials, "method", "")))
    asking = next((name for name, profile in profiles.items() if "mfa_serial" in profile), "")
    if asking and getattr(credentials, "method", "") == "assume-role":
        told = _instead(session.profile_name, "asks for an MFA code, and nobody is there while a bake runs")
        raise UsageError(f"{told}; they live for the profile's duration_seconds")
    by_sso = next((name for name, profile in profiles.items() if any(key.startswith("sso_") for key in profile)), "")
    if by_sso and isinstance(credentials, RefreshableCredentials):
        watched: Any = credentials
        watched._refresh_using = _telling(watched._refresh_using, by_sso)  # botocore has no other way


def _note(method: str, parsed: dict[str, Any], context: Mapping[str, Any], **_: object) -> None:
    parsed.get("ResponseMetadata", {}).update({REGION: context.get("client_region", ""), METHOD: method})


def _instead(profile: str, why: str) -> str:
    return f"the profile {profile!r} {why}: run {EXPORT.format(profile)} first, and leave [aws] profile empty"


def _telling(refresh: Callable[[], Any], profile: str) -> Callable[[], Any]:
    def refreshed() -> Any:
        try:
            return refresh()
        except (SSOError, TokenRetrievalError) as error:
            mend = f"run `aws sso login --profile {profile}`"
            told = f"the SSO login of profile {profile!r} is over, or was never made ({' '.join(str(error).split())})"
            raise LoginError(told=told, mend=mend) from None

    return refreshed


class _Program:
    """A credential_process as botocore starts it, without a terminal: nobody is there while a bake runs."""

    def __init__(self, command: Sequence[str], **pipes: Any) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **pipes)

    def communicate(self) -> tuple[bytes, bytes]:
        """What it prints; raises TimeoutExpired. Neither it nor what it has started goes on afterwards."""
        try:
            return self._process.communicate(timeout=PROGRAM_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @property
    def returncode(self) -> int:
        return self._process.returncode


def _given_by_program(provider: Any, command: str) -> Any:
    """What the credential_process of a profile gives; raises LoginError for whatever else it does."""
    provider._popen = _Program
    try:
        given = RETRIEVE(provider, command)
        if not isinstance(given["access_key"], str) or not isinstance(given["secret_key"], str):
            raise ValueError("what it prints has no keys")
        if given["expiry_time"] is not None and parse_timestamp(given["expiry_time"]).tzinfo is None:
            raise ValueError("the Expiration that it prints has no time zone")
        return given
    except subprocess.TimeoutExpired:
        why = f"it has not answered after {PROGRAM_SECONDS:.0f} s"
    except CredentialRetrievalError as error:
        why = " ".join(str(dict(error.kwargs)["error_msg"]).split())[-200:] or "it fails and says nothing"
    except OSError as error:
        why = f"it cannot be started: {error.strerror}"
    except (ValueError, TypeError, AttributeError) as error:
        why = f"what it prints are no credentials: {error}"
    told = f"the credential_process of profile {provider._profile_name!r} gives no credentials: {why}"
    mend = f"it must answer by itself, without a terminal; else run {EXPORT.format(provider._profile_name)} first"
    raise LoginError(told=told, mend=f"{mend}, and leave [aws] profile empty")


def _chain(session: boto3.Session) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The session's profile in AWS' configuration, and those that it takes its credentials from, in their order."""
    profiles = session._session.full_config["profiles"]
    name, seen = session.profile_name, set[str]()
    while name in profiles and name not in seen:
        yield name, profiles[name]
        seen.add(name)
        name = profiles[name].get("source_profile", "")
