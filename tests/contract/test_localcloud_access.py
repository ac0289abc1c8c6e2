"""The local cloud runs as root and listens on loopback: it answers the holder of its secret and nobody else."""

import http.client
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from localcloud.common import Folders
from localcloud.daemon import Daemon
from localcloud.endpoint import BUCKET, REGION, SEEN_BY_MACHINES, Secret
from localcloud.server import LoopbackServer, hub_app
from support.running_cloud import KEYS, SECRET, RunningCloud, forget_everything
from transcribe.fleet import queues

pytestmark = pytest.mark.slow

FORM = "Action=DescribeInstances&Version=2016-11-15"
URLENCODED = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
TARGET = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "AmazonSSM.DescribeParameters"}
Headers = dict[str, str]


def sign(running: RunningCloud, method: str, path: str, body: str = "", **options: Any) -> Headers:
    """The headers of a request that botocore has signed."""
    service, headers = options.get("service", "ec2"), options.get("headers", {})
    signer = S3SigV4Auth if service == "s3" else SigV4Auth
    request = AWSRequest(method, f"http://{running.address}{path}", headers=dict(headers), data=body.encode())
    signer(options.get("keys", KEYS), service, options.get("region", REGION)).add_auth(request)
    return dict(request.headers.items())


def send(running: RunningCloud, method: str, path: str, body: str = "", **options: Headers) -> tuple[int, str]:
    """Status and body of exactly this request; `http.client` adds the Host, unless it is given."""
    connection = http.client.HTTPConnection(running.address, timeout=10)
    connection.request(method, path, body.encode(), options.get("headers", {}))
    answer = connection.getresponse()
    seen = answer.read().decode()
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
    return answer.status, seen


def changed(headers: Headers, name: str, old: str, new: str) -> Headers:
    assert old in headers[name]
    return {**headers, name: headers[name].replace(old, new)}


def tamper_region(headers: Headers) -> Headers:
    return changed(headers, "Authorization", f"/{REGION}/", "/eu-west-1/")


def tamper_service(headers: Headers) -> Headers:
    return changed(headers, "Authorization", "/ec2/", "/sts/")


def tamper_signature(headers: Headers) -> Headers:
    last = headers["Authorization"][-1]
    return {**headers, "Authorization": headers["Authorization"][:-1] + ("0" if last != "0" else "1")}


def tamper_day(headers: Headers) -> Headers:
    return {**headers, "X-Amz-Date": "20200101T000000Z"}


def without_date(headers: Headers) -> Headers:
    return {name: value for name, value in headers.items() if name != "X-Amz-Date"}


def unsigned_target(headers: Headers) -> Headers:
    return {**headers, "X-Amz-Target": "AmazonSSM.DescribeParameters"}


def not_even_signed(headers: Headers) -> Headers:
    return {name: value for name, value in headers.items() if name != "Authorization"}


def of_the_right_shape(headers: Headers) -> Headers:
    scope = f"local/20261126/{REGION}/ec2/aws4_request"
    return {**headers, "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=x"}


def unknown_algorithm(headers: Headers) -> Headers:
    return changed(headers, "Authorization", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1")


TAMPERED = (
    *(tamper_region, tamper_service, tamper_signature, tamper_day, without_date, unsigned_target),
    *(not_even_signed, of_the_right_shape, unknown_algorithm),
)


def test_what_is_signed_is_answered(running: RunningCloud) -> None:
    headers = sign(running, "POST", "/", FORM, headers=URLENCODED)
    assert send(running, "POST", "/", FORM, headers=headers)[0] == 200


@pytest.mark.parametrize("tamper", TAMPERED)
def test_a_request_that_was_changed_after_it_was_signed_is_refused(
    running: RunningCloud, tamper: Callable[[Headers], Headers]
) -> None:
    headers = sign(running, "POST", "/", FORM, headers=URLENCODED)
    status, seen = send(running, "POST", "/", FORM, headers=tamper(headers))
    assert status == 403, seen
    assert "reservationSet" not in seen


def test_the_body_the_path_and_the_query_are_signed_too(running: RunningCloud) -> None:
    headers = sign(running, "POST", "/", FORM, headers=URLENCODED)
    other = FORM.replace("DescribeInstances", "DescribeImages")
    assert [
        send(running, *changed, headers=headers)[0]
        for changed in (("POST", "/", other), ("POST", "/x", FORM), ("POST", "/?a=b", FORM), ("PUT", "/", FORM))
    ] == [403] * 4
    stored = sign(running, "PUT", f"/{BUCKET}/key", "mine", service="s3")
    assert send(running, "PUT", f"/{BUCKET}/key", "yours", headers=stored)[0] == 400
    assert send(running, "PUT", f"/{BUCKET}/key", "mine", headers=stored)[0] == 200


@pytest.mark.parametrize("service", ["s3", "ec2", "ssm", "sts", "autoscaling", "elasticloadbalancing", "iam", "sqs"])
def test_each_service_answers_who_has_the_secret_only(running: RunningCloud, service: str) -> None:
    stranger = Secret().credentials
    assert (stranger.access_key, stranger.secret_key) != (KEYS.access_key, KEYS.secret_key)
    method, path, body, headers = "POST", "/", FORM.replace("Instances", "X"), URLENCODED
    if service == "s3":
        method, path, body, headers = "GET", f"/{BUCKET}", "", {}
    elif service in ("ssm", "sqs"):
        body, headers = "{}", TARGET if service == "ssm" else {**TARGET, "X-Amz-Target": "AmazonSQS.ListQueues"}
    for keys in (stranger, Credentials(KEYS.access_key, "local"), Credentials("local", "local")):
        signed = sign(running, method, path, body, service=service, headers=headers, keys=keys)
        status, seen = send(running, method, path, body, headers=signed)
        assert (status, bool(re.search("InvalidAccessKeyId|SignatureDoesNotMatch", seen))) == (403, True)
    assert send(running, method, path, body, headers=headers)[0] == 403


def test_queues_of_a_fleet_are_served(running: RunningCloud) -> None:
    sqs = running.client("sqs")
    made = queues.make(sqs, "speech", {"project": "test"})
    assert queues.find(sqs, "speech") is not None
    sent = made.usual.send(b"{}", "anna")
    taken = made.usual.receive(hold=60, wait=1)
    assert taken
    assert (taken.id, taken.count) == (sent, 1)
    assert made.usual.hold(taken.receipt, 30)
    made.usual.delete(taken.receipt)
    assert made.usual.receive(hold=60, wait=0) is None


def test_a_refusal_is_an_error_of_aws_to_its_clients(running: RunningCloud) -> None:
    stranger = Secret().credentials
    for service, call in (("ec2", "describe_images"), ("ssm", "describe_parameters"), ("s3", "list_buckets")):
        client = running.client(service, keys=stranger)
        with pytest.raises(client.exceptions.ClientError, match="InvalidAccessKeyId"):
            getattr(client, call)()


def test_a_presigned_url_allows_one_operation_for_its_time(
    running: RunningCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = running.client("s3")
    url = s3.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "a/ö b"}, ExpiresIn=60)
    assert requests.put(url, data=b"said", timeout=10).status_code == 200
    assert s3.get_object(Bucket=BUCKET, Key="a/ö b")["Body"].read() == b"said"
    assert requests.get(url, timeout=10).status_code == 403
    for old, new in (("Expires=60", "Expires=600"), ("/a/", "/b/"), (f"%2F{REGION}%2F", "%2Feu-west-1%2F")):
        assert old in url
        assert requests.put(url.replace(old, new), data=b"more", timeout=10).status_code == 403
    assert requests.put(url + "&X-Amz-Expires=600", timeout=10).status_code == 403
    assert requests.put(url, headers={"X-Amz-Copy-Source": f"/{BUCKET}/other"}, timeout=10).status_code == 403
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: datetime.now(UTC) - timedelta(seconds=61))
    expired = s3.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "a"}, ExpiresIn=60)
    refusal = requests.put(expired, data=b"late", timeout=10)
    assert (refusal.status_code, "Request has expired" in refusal.text) == (403, True)


def test_a_presigned_url_cannot_be_turned_into_a_call(running: RunningCloud) -> None:
    """Its body and other headers are not signed, and moto looks there for the service that is meant."""
    url = running.client("s3").generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "k"})
    forged = {"Authorization": f"AWS4-HMAC-SHA256 Credential={KEYS.access_key}/20261126/{REGION}/ec2/aws4_request"}
    assert requests.put(url, FORM, headers={**URLENCODED, **forged}, timeout=10).status_code == 403
    web = "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn:aws:iam::1:role/r&RoleSessionName=s"
    answer = requests.put(url, f"{web}&WebIdentityToken=t", headers=URLENCODED, timeout=10)
    assert (answer.status_code, "AccessKeyId" in answer.text) == (200, False)
    assert requests.put(url, headers={"X-Amz-Target": "AmazonSSM.PutParameter"}, timeout=10).status_code == 403


def test_machines_need_no_keys_and_never_have_the_owners(running: RunningCloud) -> None:
    """At the address that machines see, a full signature by them is refused."""
    inside = f"{SEEN_BY_MACHINES}:{running.served.port}"
    url = running.client("s3").generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "k"})
    there = running.client("s3", url=f"http://{inside}").generate_presigned_url(
        "put_object", Params={"Bucket": BUCKET, "Key": "k"}
    )
    parts = urlsplit(there)
    assert send(running, "PUT", f"{parts.path}?{parts.query}", "x", headers={"Host": inside})[0] == 200
    assert send(running, "PUT", urlsplit(url).path + "?" + urlsplit(url).query, headers={"Host": inside})[0] == 403
    signed = sign(running, "GET", f"/{BUCKET}", service="s3", headers={"Host": inside})
    assert send(running, "GET", f"/{BUCKET}", headers={**signed, "Host": inside})[0] == 403
    token = {"Authorization": f"Bearer {SECRET.control_token}", "Host": inside}
    assert send(running, "GET", "/_cloud/health", headers=token)[0] == 403


@pytest.mark.parametrize("name", ["evil.example", "localhost:{port}", "127.0.0.1", "[::1]:{port}", "127.0.0.1:{port}."])
def test_a_foreign_host_name_is_refused(running: RunningCloud, name: str) -> None:
    host = {"Host": name.format(port=running.served.port)}
    signed = sign(running, "POST", "/", FORM, headers={**URLENCODED, **host})
    assert send(running, "POST", "/", FORM, headers={**signed, **host})[0] == 403
    control = {"Authorization": f"Bearer {SECRET.control_token}", **host}
    assert send(running, "GET", "/_cloud/health", headers=control)[0] == 403


def test_a_page_of_a_browser_is_refused_and_no_preflight_answered(running: RunningCloud) -> None:
    page = {"Origin": "http://evil.example"}
    wish = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    assert send(running, "OPTIONS", "/", headers={**page, **wish})[0] == 403
    assert send(running, "OPTIONS", "/_cloud/stop", headers={**page, **wish})[0] == 403
    signed = sign(running, "POST", "/", FORM, headers=URLENCODED)
    assert send(running, "POST", "/", FORM, headers={**signed, **page})[0] == 403
    assert running.ask("GET", "health", Origin="http://evil.example").status_code == 403


def test_the_control_api_needs_the_secret(running: RunningCloud) -> None:
    calls = [("POST", "stop"), ("GET", "health"), ("POST", "machines"), ("DELETE", "machines/i-0")]
    for method, path in (*calls, ("GET", "machines/i-0/ports/22"), ("GET", "images/ami-0")):
        for other in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {Secret().control_token}"}):
            assert send(running, method, f"/_cloud/{path}", headers=other)[0] == 403
        assert send(running, method, f"/%5fcloud/{path}")[0] == 403
    assert not running.stopped
    assert running.ask("POST", "stop").status_code == 200
    assert running.stopped


def test_the_model_hub_refuses_pages_too(folders: Folders) -> None:
    hub = LoopbackServer(hub_app(folders))
    url, rebound = f"http://127.0.0.1:{hub.port}/", {"Host": "evil.example"}
    try:
        for headers, status in (({}, 404), (rebound, 403), ({"Origin": "http://evil.example"}, 403)):
            assert requests.get(url, headers=headers, timeout=10).status_code == status
    finally:
        hub.close()


@pytest.mark.parametrize("path", ["/moto-api/data.json", "/latest/meta-data/", "/latest/api/token", "/favicon.ico"])
def test_motos_own_interface_is_closed_to_the_keys_too(running: RunningCloud, path: str) -> None:
    headers = sign(running, "GET", path, service="s3")
    assert send(running, "GET", path, headers=headers)[0] == 403


def test_what_is_refused_does_not_keep_the_local_cloud_alive(running: RunningCloud) -> None:
    running.activity.last = 0.0
    send(running, "POST", "/", FORM, headers=URLENCODED)
    send(running, "GET", "/_cloud/health")
    assert running.activity.last == 0.0
    running.ask("GET", "health")
    assert running.activity.last > 0.0


def test_only_its_owner_can_read_what_a_daemon_keeps(folders: Folders) -> None:
    forget_everything()
    folders.state.chmod(0o755)  # as earlier versions left it
    folders.make_state()
    daemon = Daemon(folders)
    try:
        daemon.publish()
        assert folders.state.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in (folders.secret, folders.endpoint)} == {0o600}
        keys = Secret(json.loads(folders.secret.read_text())).credentials
        assert (keys.access_key, keys.secret_key) == (daemon.endpoint.access_key_id, daemon.endpoint.secret_access_key)
        assert daemon.secret.value not in folders.endpoint.read_text()
    finally:
        daemon.close()
