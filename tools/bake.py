#!/usr/bin/env python3
"""Bake a machine image: `python3 tools/bake.py --help`. Needs nothing but Python: it sets up the rest by itself."""

import sys
from pathlib import Path

import ownvenv

if __name__ == "__main__":
    try:
        ownvenv.enter(str(Path(__file__).resolve()), "tools", ownvenv.ROOT / "tools/requirements.lock")
        sys.path.append(str(ownvenv.ROOT / "service"))  # for keys, which the service reads
        from baker.cli import main
    except KeyboardInterrupt:
        ownvenv.fail(__file__, "interrupted")
    sys.exit(main(sys.argv[1:]))
