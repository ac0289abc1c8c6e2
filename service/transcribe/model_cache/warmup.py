"""Loads the model and runs it once, then prints what it learned as one line of JSON. Started by fetch.warm_up."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from transcribe.engine import Engine, kernels_stored


def run(folder: Path, device: str, dtype: str, max_chunks: int | None, cache: Path) -> dict[str, Any]:
    """Device, torch_dtype and whether compiled kernels were stored for the next start. Raises EngineError.

    `cache` also holds weights that the engine prepared; those are no kernels.
    """
    cache.mkdir(parents=True, exist_ok=True)
    engine = Engine.load(folder, device=device, dtype=dtype, max_chunks=max_chunks, cache_dir=cache)
    engine.warm_up()
    return {"device": engine.device, "torch_dtype": engine.torch_dtype, "kernels_compiled": kernels_stored(cache)}


def main(arguments: list[str]) -> int:
    """Arguments: the model's folder, device, dtype, max_chunks (0 for "auto"), the engine's cache. A failure is printed
    as "error"."""
    folder, device, dtype, max_chunks, cache = arguments
    os.umask(0o022)  # who warms the model writes what is prepared, the service's user reads it
    try:
        answer = run(Path(folder), device, dtype, int(max_chunks) or None, Path(cache))
    except Exception as error:  # whatever went wrong is the reason that the cache's description must give
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer))
    return 1 if "error" in answer else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
