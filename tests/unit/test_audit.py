"""The look for known holes in the locks: it finds one where there is one."""

from pathlib import Path
from typing import Any

import audit

ADVISORIES: dict[str, list[dict[str, Any]]] = {
    "flask": [{"advisory": "Denial of service.", "specs": ["<0.12.3", ">=2,<2.2.5"]}]
}


def test_a_pinned_version_with_a_hole_is_named(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    lock.write_text("Flask==2.2.4 \\\n    --hash=sha256:00\ntorch==2.13.0+cpu \\\n    --hash=sha256:00\n")
    assert audit.pins(lock) == [("flask", "2.2.4"), ("torch", "2.13.0")]
    [hole] = audit.by_list(lock, ADVISORIES)
    assert hole.endswith("a.lock: flask 2.2.4: Denial of service.")
    lock.write_text("flask==2.2.5 \\\n    --hash=sha256:00\n")
    assert list(audit.by_list(lock, ADVISORIES)) == []


def test_every_lock_is_looked_at() -> None:
    locks = audit.locks()
    names = {str(lock.relative_to(audit.ROOT)) for lock in locks}
    assert names >= {"service/cpu.lock", "service/cuda.lock", "salt/requirements.lock", "tools/requirements.lock"}
    assert all(audit.pins(lock) for lock in locks)
