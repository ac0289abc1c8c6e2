"""`python -m localcloud start|stop|status|serve`: the local cloud by hand, from the tools folder."""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from .client import LocalCloud, folders_of
from .common import PROJECT, Folders, LocalCloudError


def serve(state: Path) -> None:
    from .daemon import main as serve_forever

    serve_forever(Folders.of(state))


def main() -> None:
    parser = argparse.ArgumentParser(prog="localcloud", description=__doc__)
    parser.add_argument("command", choices=("start", "stop", "serve"))
    parser.add_argument("--state", type=Path, default=folders_of(PROJECT).state)
    options = parser.parse_args()
    try:
        if options.command == "serve":
            serve(options.state)
        elif options.command == "stop":
            print("stopped" if LocalCloud.stop(PROJECT) else "was not running")
        else:
            for name, value in asdict(LocalCloud.ensure(PROJECT)).items():
                print(f"{name} = {value}")
    except LocalCloudError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
