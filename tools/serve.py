#!/usr/bin/env python3
"""Run the service on this computer, without any machine and without root: `python3 tools/serve.py --help`.

Needs nothing but Python and ffmpeg: it sets up the service's environment by itself, once.
"""

import sys
from pathlib import Path

import ownvenv

if __name__ == "__main__":
    lock = "cuda.lock" if Path("/dev/nvidia0").exists() else "cpu.lock"
    try:
        ownvenv.enter(str(Path(__file__).resolve()), "service", ownvenv.ROOT / "service" / lock)
        from serving.run import main
    except KeyboardInterrupt:
        ownvenv.fail(__file__, "interrupted")
    sys.exit(main(sys.argv[1:]))
