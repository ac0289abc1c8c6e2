#!/usr/bin/env python3
"""From the start of the processes to the first request that would be served: our service, and a naive server.

Both load the same weights from the page cache. Ours is ready when both of its processes are and the model has run once;
the naive one as soon as it listens, though it has not run yet.
"""

import argparse
import statistics
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[depth] / name) for depth, name in ((1, ""), (2, "tools"))]

from localcloud.hub.models import model_dir  # noqa: E402 - found by the line above

from bench import common, served  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--port", type=int, default=18_431, help="and the one after it")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    described = common.machine()
    config, folder = served.prepare(options.port), model_dir("whisper-base")
    naive = [sys.executable, str(Path(__file__).with_name("naive.py")), str(folder), str(options.port + 1)]
    ours, theirs = [], []
    for _ in range(options.repeats + 1):
        with served.service(config, options.port) as seconds:
            ours.append(seconds)
        with served.program(naive, f"http://127.0.0.1:{options.port + 1}/ready") as seconds:
            theirs.append(seconds)
    del ours[0], theirs[0]  # they fill the page cache
    medians = statistics.median(ours), statistics.median(theirs)
    print(f"start to ready: ours {medians[0]:.2f} s, naive {medians[1]:.2f} s, ratio {medians[0] / medians[1]:.2f}")
    figures = {"ours_seconds": ours, "naive_seconds": theirs, "ratio": round(medians[0] / medians[1], 3)}
    common.write(options.json, {"machine": described, **figures})


if __name__ == "__main__":
    main()
