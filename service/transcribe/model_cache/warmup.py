"""Loads the model and runs it once, then prints what it learned as one line of JSON. Started by modelcache.warm_up."""

import json
import sys
from pathlib import Path
from typing import Any

WARM_SECONDS = 5.0  # of a quiet noise: enough to touch every kernel


def run(folder: Path, device: str, dtype: str, max_chunks: int, cache: Path) -> dict[str, Any]:
    """Device, torch_dtype and whether compiled kernels were stored for the next start. Raises EngineError.

    `cache` also holds weights that the engine prepared; those are no kernels.
    """
    import numpy as np

    from transcribe.engine import Chunk, Engine
    from transcribe.engine.cuda import compile_cache
    from transcribe.types import SAMPLE_RATE, DecodeOptions

    cache.mkdir(parents=True, exist_ok=True)
    engine = Engine.load(folder, device=device, dtype=dtype, max_chunks=max_chunks, cache_dir=cache)
    noise = np.random.default_rng(0).normal(0.0, 0.01, int(WARM_SECONDS * SAMPLE_RATE)).astype(np.float32)
    engine.transcribe([Chunk(key=0, audio=noise, options=DecodeOptions(language="en"))])
    compiled = compile_cache.stored(cache)
    return {"device": engine.device, "torch_dtype": engine.torch_dtype, "kernels_compiled": compiled}


def main(arguments: list[str]) -> int:
    """Arguments: the model's folder, device, dtype, max_chunks, the engine's cache. A failure is told as "error"."""
    folder, device, dtype, max_chunks, cache = arguments
    try:
        answer = run(Path(folder), device, dtype, int(max_chunks), Path(cache))
    except Exception as error:  # whatever went wrong is the reason that the cache's description must give
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer))
    return 1 if "error" in answer else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
