"""Forwards TCP connections from one network namespace into another.

Also a program, for supervisor.py: `relay.py NAMESPACE ADDRESS PORT[=SOCKET]...` listens on ADDRESS in that network
namespace, and forwards to the same ports of its own loopback, or to the Unix sockets that are named. It prints a line
once it listens. Standard library only.
"""

import asyncio
import contextlib
import ctypes
import os
import socket
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

CLONE_NEWNET = 0x40000000
CHUNK = 65_536  # bytes


def join(namespace: Path) -> None:
    """Put the calling thread, and no other, into a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with namespace.open() as file:
        if libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int | str) -> None:
    """Forward one connection to a port of the 127.0.0.1 that this thread sees, or to a Unix socket."""
    with contextlib.closing(writer):
        try:
            if isinstance(target, str):
                inner_reader, inner_writer = await asyncio.open_unix_connection(target)
            else:
                inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            return  # as if nothing listened
        with contextlib.closing(inner_writer):
            await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except (OSError, asyncio.CancelledError):
        writer.close()


def listen_in(namespace: Path, address: str, ports: Sequence[int]) -> list[socket.socket]:
    """Listeners in a network namespace, in which they stay; the caller stays in its own."""
    found: list[socket.socket] = []
    errors: list[OSError] = []

    def listen() -> None:
        try:
            join(namespace)
            found.extend(socket.create_server((address, port)) for port in ports)
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return found


async def forward(listeners: Sequence[socket.socket], targets: Sequence[int | str]) -> None:
    """Forward what connects to each listener to its target, for ever; says on standard output when it begins."""
    for listener, target in zip(listeners, targets, strict=True):
        await asyncio.start_server(partial(serve, target=target), sock=listener)
    print("listening", flush=True)
    await asyncio.Event().wait()


def main(arguments: Sequence[str]) -> None:
    namespace, address, *doors = arguments
    parts = [door.partition("=") for door in doors]
    ports, targets = [int(port) for port, _, _ in parts], [path or int(port) for port, _, path in parts]
    asyncio.run(forward(listen_in(Path(namespace), address, ports), targets))


if __name__ == "__main__":
    main(sys.argv[1:])
