"""The lease of a launcher: renewed while it lives, lost when another one writes it, given back at its end."""

import io
import os
import subprocess
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
from baker.recovery import lease
from localcloud.aws import s3_conditions
from support.fake_cloud import Cloud
from support.recorder import Recorder

pytestmark = pytest.mark.slow


def test_a_living_launcher_renews_it_and_notices_its_loss(
    cloud: Cloud, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    context, key = cloud.context, lease.key_of(cloud.context)
    with lease.held(context, "b1") as alone:
        written: Any = context.bucket.read(key)
        assert lease.present(context) is not None
        writings = recorder.calls["s3", "PutObject"]
        before = len(writings)
        while len(writings) < before + 3:
            time.sleep(0.01)
        alone.sleep(0)
        context.bucket.put(key, written.data.replace(b"b1", b"b2"))
        with pytest.raises(lease.LostError, match="works on b2 now"):
            wait_for_loss(alone)
        with pytest.raises(lease.LostError):
            alone.renew_lease()
    left = context.bucket.get(key)
    assert left is not None
    assert b"b2" in left, "what is lost is not given back"


def wait_for_loss(alone: Any) -> None:
    for _ in range(500):
        alone.sleep(0.01)


def test_it_is_free_once_it_was_given_back(cloud: Cloud) -> None:
    for _ in range(2):
        with lease.held(cloud.context, "b1"):
            assert lease.present(cloud.context) is not None
        assert lease.present(cloud.context) is None


def test_a_bucket_that_fails_at_the_end_changes_nothing(cloud: Cloud) -> None:
    with lease.held(cloud.context, "b1"):
        for found in cloud.s3.list_objects_v2(Bucket="bakes")["Contents"]:
            cloud.s3.delete_object(Bucket="bakes", Key=found["Key"])
        cloud.s3.delete_bucket(Bucket="bakes")


def test_a_process_is_dead_when_it_has_ended_or_its_number_is_another_ones() -> None:
    child = subprocess.Popen(["sleep", "60"])
    told = lease.process(child.pid)
    assert not told.dead
    assert replace(told, began="1").dead
    assert not replace(told, began="1", place="another computer").dead
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert told.dead, "a zombie is dead"
    child.wait()
    assert told.dead


def test_of_conditional_writes_at_one_time_one_succeeds() -> None:
    """The look and the writing of the application inside are apart, as moto's are."""
    there: list[int] = []

    def looks_then_writes(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        absent = not there
        time.sleep(0.002)
        if absent:
            there.append(1)
        return [b""]

    application = s3_conditions.atomic(looks_then_writes)
    environ = {"HTTP_IF_NONE_MATCH": "*", "wsgi.input": io.BytesIO()}
    threads = [threading.Thread(target=application, args=(dict(environ), None)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert there == [1]
