"""Hears recordings with the engine in int8, and prints each one's tokens and words as a line of JSON.

hear.py MODEL KEPT WAV…: the model's folder, and that of its prepared weights and kernels.
"""

import json
import sys
from pathlib import Path

import soundfile
from transcribe.engine import Chunk, Engine
from transcribe.engine.model import quantize
from transcribe.types import DecodeOptions

quantize.bfloat16_products = lambda: False  # ARMs do the encoder's attention in float32
model, kept, *recordings = map(Path, sys.argv[1:])
engine = Engine.load(model, device="cpu", dtype="int8", max_chunks=len(recordings), cache_dir=kept)
options = DecodeOptions(language="en", words=True)
chunks = [Chunk(number, soundfile.read(path, dtype="float32")[0], options) for number, path in enumerate(recordings)]
for result in sorted(engine.transcribe(chunks), key=lambda found: int(str(found.key))):
    tokens = [token for segment in result.segments for token in segment.tokens]
    words = [[word.word, word.start, word.end] for segment in result.segments for word in segment.words or ()]
    print(json.dumps({"tokens": tokens, "words": words}))
