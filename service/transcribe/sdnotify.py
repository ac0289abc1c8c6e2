"""Reports the service's state to systemd (man sd_notify); does nothing when systemd did not start it."""

import os
import socket


def notify(state: str) -> bool:
    """Sends lines such as READY=1, WATCHDOG=1, STOPPING=1 or STATUS=...; returns False if systemd is not listening."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as unix:
        unix.connect(address.replace("@", "\0", 1))
        unix.sendall(state.encode())
    return True


def watchdog_seconds() -> float | None:
    """The interval within which systemd expects WATCHDOG=1 from this process; None if it does not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdigit() and int(microseconds) else None
