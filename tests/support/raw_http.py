"""Requests as bytes, for what no HTTP client would send."""

import socket

from support.api_server_fixture import Reply


def posted(port: int, request: bytes) -> Reply:
    """The answer to these bytes, sent as they are; they must ask for the connection to be closed."""
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.sendall(request)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    top, _, rest = answer.partition(b"\r\n\r\n")
    if top.startswith(b"HTTP/1.1 100"):
        top, _, rest = rest.partition(b"\r\n\r\n")
    lines = top.decode("latin-1").split("\r\n")
    return Reply(int(lines[0].split()[1]), rest, dict(line.split(": ", 1) for line in lines[1:]))
