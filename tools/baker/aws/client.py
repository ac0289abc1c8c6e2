"""How every AWS call is made: the clients, the waiting, and failures as one line."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
from botocore.config import Config as ClientConfig
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ProfileNotFound,
    SSLError,
    SSOError,
    SSOTokenLoadError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError
from transcribe.fleet import encryption

from baker.aws import logins, mends
from baker.config import LauncherConfig
from baker.errors import AwsError, UsageError

if TYPE_CHECKING:
    from mypy_boto3_autoscaling import AutoScalingClient
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef
    from mypy_boto3_elbv2 import ElasticLoadBalancingv2Client
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_ssm import SSMClient

T = TypeVar("T")

POLL_SECONDS = 2.0
PRICE_LIST = "us-east-1"  # the region that AWS' price list is served from, whatever region it is asked about
SETTLING_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0)  # pauses until all of AWS knows a new resource
MAX_TRANSIENT = 20  # failed polls in a row, each of which botocore has tried five times
ENCODED = " Encoded authorization failure message:"  # a thousand characters that no person reads
TRANSIENT_CODES = frozenset(
    {
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "SlowDown",
        "TooManyRequests",
        "TooManyRequestsException",
    }
)
GONE_CODES = frozenset(
    {
        "404",
        "NoSuchKey",
        "ParameterNotFound",
        "TargetGroupNotFound",
        "InvalidAMIID.Unavailable",
        "NotFoundException",
        "NoSuchEntity",
        "ResourceNotFound",
        "ServerSideEncryptionConfigurationNotFoundError",
    }
)  # fmt: skip - beside those that say NotFound after a dot
RETRIES = ClientConfig(
    retries={"mode": "standard", "total_max_attempts": 5}, connect_timeout=10, read_timeout=60, user_agent_extra="bake"
)


def _no_other(service: str) -> Any:
    raise LookupError(f"these clients were made without one for {service}")


@dataclass(frozen=True)
class Clients:
    """The services that a bake uses; `presigner` presigns URLs as machines reach them, and sends nothing."""

    ec2: "EC2Client"
    ssm: "SSMClient"
    s3: "S3Client"
    presigner: "S3Client"
    autoscaling: "AutoScalingClient"
    elbv2: "ElasticLoadBalancingv2Client"
    pricing: Any
    region: str = ""
    credentials: Any = None  # botocore's own; None: there are none
    upload_headers: Mapping[str, str] = field(default_factory=dict)  # that a PUT to a signed address must carry
    other: Callable[[str], Any] = _no_other  # a client of a service that is rarely needed, by its name
    sleep: Callable[[float], None] = time.sleep


def connect(config: LauncherConfig, session: boto3.Session, *, sleep: Callable[[float], None] = time.sleep) -> Clients:
    """Clients for the configured endpoints; makes no request."""
    endpoint = config.aws.endpoint_url or None
    region = config.aws.region
    outside = config.s3.presign_endpoint_url or endpoint
    named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")  # botocore's own
    asked = (config.s3.encryption, config.s3.kms_key)
    with aws_errors("client"):
        s3 = session.client("s3", region_name=region, endpoint_url=endpoint, config=s3_style(endpoint or named))
        presigner = session.client("s3", region_name=region, endpoint_url=outside, config=s3_style(outside or named))
        for client in (s3, presigner):
            encryption.ask_for(client, *asked)
        return Clients(
            ec2=session.client("ec2", region_name=region, endpoint_url=endpoint, config=RETRIES),
            ssm=session.client("ssm", region_name=region, endpoint_url=endpoint, config=RETRIES),
            s3=s3,
            presigner=presigner,
            autoscaling=session.client("autoscaling", region_name=region, endpoint_url=endpoint, config=RETRIES),
            elbv2=session.client("elbv2", region_name=region, endpoint_url=endpoint, config=RETRIES),
            pricing=session.client("pricing", region_name=PRICE_LIST, endpoint_url=endpoint, config=RETRIES),
            region=region,
            credentials=session.get_credentials(),
            upload_headers=encryption.headers(*asked),
            other=cache(
                lambda service: session.client(service, region_name=region, endpoint_url=endpoint, config=RETRIES)
            ),
            sleep=sleep,
        )


def open_session(config: LauncherConfig) -> boto3.Session:
    """The session that the configuration names; raises UsageError for a profile that is not there, or asks."""
    keys: dict[str, Any] = {}
    if config.credentials:
        keys = {
            "aws_access_key_id": config.credentials.access_key_id,
            "aws_secret_access_key": config.credentials.secret_access_key,
        }
    with aws_errors("session"):
        try:
            session = boto3.Session(region_name=config.aws.region, profile_name=config.aws.profile or None, **keys)
            logins.watch(session)
        except ProfileNotFound as error:
            where = "[aws] profile" if config.aws.profile else "AWS_PROFILE"
            told = f"{where} {error.kwargs.get('profile')!r} is not in your AWS configuration"
            raise UsageError(f"{told}; `aws configure list-profiles` names those that are") from None
    return session


def s3_style(endpoint_url: str | None) -> ClientConfig:
    """S3's own addresses carry the bucket in the host name; anything else that speaks S3 has it in the path."""
    if endpoint_url:
        return RETRIES.merge(ClientConfig(signature_version="s3v4", s3={"addressing_style": "path"}))
    return RETRIES.merge(ClientConfig(signature_version="s3v4", s3={"addressing_style": "virtual"}))


class TransientErrors:
    """Tolerates polls that fail for a transient reason: what is waited for goes on meanwhile."""

    def __init__(self) -> None:
        self._seen = 0

    def tolerate(self, error: AwsError) -> None:
        """Return if another poll is worth it; otherwise raise `error`."""
        self._seen += 1
        if not error.transient or self._seen > MAX_TRANSIENT:
            raise error

    def reset(self) -> None:
        """A poll succeeded."""
        self._seen = 0


def wait_for(
    poll: Callable[[], T | None], seconds: float, sleep: Callable[[float], None], every: float = POLL_SECONDS
) -> T | None:
    """What `poll` returns once that is not None; None after `seconds`. Raises AwsError that is not transient."""
    errors, spent = TransientErrors(), 0.0
    while spent < seconds:
        began = time.monotonic()
        try:
            found = poll()
            errors.reset()
        except AwsError as error:
            errors.tolerate(error)
            found = None
        if found is not None:
            return found
        spent += time.monotonic() - began + every
        sleep(every)
    return None


def eventually(clients: Clients, call: Callable[[], T]) -> T:
    """Make a call that names a new resource; repeat it while some part of AWS does not know the resource yet."""
    for pause in SETTLING_SECONDS:
        try:
            return call()
        except AwsError as error:
            if not is_missing(error):
                raise
        clients.sleep(pause)
    return call()


def is_missing(error: AwsError) -> bool:
    """Whether AWS says that the thing is not there (yet, or any more)."""
    return error.code in GONE_CODES or ".NotFound" in error.code


def unless_missing(doing: str, call: Callable[[], T]) -> T | None:
    """What a call returns; None if AWS says that the thing is not there (yet, or any more)."""
    try:
        with aws_errors(doing):
            return call()
    except AwsError as error:
        if not is_missing(error):
            raise
    return None


def tag_filters(tags: Mapping[str, str]) -> "list[FilterTypeDef]":
    """The filter of a describe call for resources that carry all of `tags`."""
    return [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags.items()]


@contextmanager
def read_only() -> Iterator[None]:
    """Inside, nothing is changed, so what AWS refuses is wrong usage or configuration: AwsError becomes UsageError."""
    try:
        yield
    except AwsError as error:
        raise UsageError(str(error)) from None


def _refusal(doing: str, error: ClientError) -> AwsError:
    code = error.response.get("Error", {}).get("Code", "")
    said = " ".join(error.response.get("Error", {}).get("Message", "").split())
    message, encoded, _ = said.partition(ENCODED)
    answer = error.response.get("ResponseMetadata", {})
    keys = logins.mend(code, message, answer)
    message = message or ("these keys are not valid" if keys else "no reason given")
    return AwsError(
        f"AWS refused {doing}: {message} ({code})",
        code,
        transient=answer.get("HTTPStatusCode", 0) >= 500 or code in TRANSIENT_CODES,
        logged_out=bool(keys),
        mend=keys or mends.mend(code, message, encoded=bool(encoded)),
    )


def _other(doing: str, error: BotoCoreError | RecursionError) -> AwsError:
    """botocore asks S3 by HEAD where a bucket is, which may be redirected again, until Python's stack ends anywhere."""
    if isinstance(error, RecursionError) or isinstance(error.kwargs.get("error"), RecursionError):
        return AwsError(f"AWS {doing}: redirected, and nothing says where to; is there a proxy?", "301")
    mend = "if a proxy opens TLS here, name a file of its certificates in AWS_CA_BUNDLE"
    return AwsError(
        f"AWS {doing}: {' '.join(str(error).split())}",
        transient=isinstance(error, HTTPClientError),
        mend=mend if isinstance(error, SSLError) else "",
    )


@contextmanager
def aws_errors(doing: str) -> Iterator[None]:
    """Turn whatever botocore raises into an AwsError of one line; `doing` names the operation."""
    try:
        yield
    except ClientError as error:
        raise _refusal(doing, error) from None
    except NoCredentialsError:
        raise AwsError(
            f"AWS {doing}: no credentials", logged_out=True, mend="set AWS_PROFILE or [aws] profile, or log in"
        ) from None
    except EndpointConnectionError as error:
        where = error.kwargs.get("endpoint_url", "the endpoint")
        raise AwsError(
            f"AWS {doing}: cannot reach {where}; check [aws] region, and the network", transient=True
        ) from None
    except logins.LoginError as error:
        raise AwsError(f"AWS {doing}: {error}", logged_out=True, mend=error.kwargs["mend"]) from None
    except (CredentialRetrievalError, SSOError, SSOTokenLoadError, TokenRetrievalError) as error:
        said = " ".join(str(error).split())
        raise AwsError(f"AWS {doing}: {said}", logged_out=True, mend="log in again") from None
    except ResponseParserError:
        raise AwsError(
            f"AWS {doing}: the answer is none of AWS'; is there a proxy, or another server at [aws] endpoint_url?",
            transient=True,
        ) from None
    except (BotoCoreError, RecursionError) as error:
        raise _other(doing, error) from None
