"""Forwards a port of this host's loopback to a port of a machine's loopback."""

import asyncio
import socket
import threading
from pathlib import Path

from localcloud.common import LocalCloudError
from localcloud.machines import relay


class Forwarder:
    """Forwards TCP from a port of this host's 127.0.0.1 to `port` on the 127.0.0.1 of a machine."""

    def __init__(self, *, leader: int, port: int) -> None:
        """`leader` is the machine's init as this host numbers it. Raises LocalCloudError."""
        self.port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._error: OSError | None = None
        self._namespace = Path(f"/proc/{leader}/ns/net")
        threading.Thread(target=self._run, daemon=True).start()
        self._ready.wait()
        if self._error:
            raise LocalCloudError(f"cannot reach the machine's network: {self._error}")

    def close(self) -> None:
        """Stop listening, and end what is being forwarded."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self) -> None:
        try:
            relay.join(self._namespace)  # the listener was made before, and stays where it was made
        except OSError as error:
            self._error = error
            self._ready.set()
            return
        self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._listener))
        self._ready.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._listener.close()
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await relay.serve(reader, writer, self.port)
