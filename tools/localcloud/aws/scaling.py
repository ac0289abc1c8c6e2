"""What moto lacks for the policies of a group: it does not understand CloudWatch's clients, which speak CBOR (Smithy
RPC v2) where moto speaks JSON, and it misspells a policy's ARN."""

import io
import json
import re
import struct
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from botocore.parsers import RpcV2CBORParser
from moto.autoscaling.responses import AutoScalingResponse
from moto.core.responses import ActionResult

PUT_SCALING_POLICY: Callable[[AutoScalingResponse], ActionResult] = AutoScalingResponse.put_scaling_policy
PATH = re.compile(r"/service/(GraniteServiceVersion\d+)/operation/(\w+)")
UNSIGNED, NEGATIVE, TEXT, ARRAY, MAP = 0, 1, 3, 4, 5  # major types


def understood(inner: WSGIApplication) -> WSGIApplication:
    """`inner`, moto's application, which gets CloudWatch's requests in JSON, and whose answers go out in CBOR."""
    AutoScalingResponse.put_scaling_policy = _put_scaling_policy

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        found = PATH.fullmatch(environ["PATH_INFO"])
        if found is None:
            return inner(environ, start_response)
        told: list[str] = []

        def begin(status: str, _headers: list[tuple[str, str]], _error: Any = None) -> Callable[[bytes], object]:
            told.append(status)
            return lambda data: None

        body = b"".join(inner(_in_json(environ, *found.groups()), begin))
        answer = encoded(_read(body))
        headers = [("Content-Type", "application/cbor"), ("smithy-protocol", "rpc-v2-cbor")]
        start_response(told[0], [*headers, ("Content-Length", str(len(answer)))])
        return [answer]

    return application


def _put_scaling_policy(response: AutoScalingResponse) -> ActionResult:
    return ActionResult({"PolicyARN": PUT_SCALING_POLICY(response).result["PolicyArn"]})


def _in_json(environ: WSGIEnvironment, service: str, operation: str) -> WSGIEnvironment:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    parser = RpcV2CBORParser()
    asked = parser.parse_data_item(parser.get_peekable_stream_from_bytes(body)) if body else {}
    data = json.dumps(asked, default=datetime.timestamp).encode()
    return {
        **environ,
        "PATH_INFO": "/",
        "HTTP_X_AMZ_TARGET": f"{service}.{operation}",
        "CONTENT_TYPE": "application/x-amz-json-1.0",
        "CONTENT_LENGTH": str(len(data)),
        "wsgi.input": io.BytesIO(data),
    }


def _read(body: bytes) -> Any:
    try:
        return json.loads(body or b"{}")
    except ValueError:
        return {"__type": "InternalServiceFault", "message": body.decode(errors="replace")}


def encoded(value: Any) -> bytes:
    """A JSON value in CBOR, as RFC 8949 has it."""
    if value is None or isinstance(value, bool):
        return {None: b"\xf6", False: b"\xf4", True: b"\xf5"}[value]
    if isinstance(value, float):
        return b"\xfb" + struct.pack(">d", value)
    if isinstance(value, int):
        return _head(UNSIGNED, value) if value >= 0 else _head(NEGATIVE, -1 - value)
    if isinstance(value, str):
        return _head(TEXT, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return _head(ARRAY, len(value)) + b"".join(map(encoded, value))
    return _head(MAP, len(value)) + b"".join(encoded(key) + encoded(each) for key, each in value.items())


def _head(kind: int, number: int) -> bytes:
    """The beginning of an item of this major type: a number, or how many bytes or items follow."""
    if number < 24:
        return bytes([kind << 5 | number])
    size = next(size for size in (1, 2, 4, 8) if number < 1 << 8 * size)
    return bytes([kind << 5 | 24 + (1, 2, 4, 8).index(size)]) + number.to_bytes(size, "big")
