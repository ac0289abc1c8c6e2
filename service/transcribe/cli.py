"""The command line's way: one recording, in this process, with the worker's parts but without its queue."""

import argparse
import json
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from transcribe import formats
from transcribe.audio.chunking import AudioChunk
from transcribe.audio.decoder import AudioError, Decoder
from transcribe.audio.errors import DecoderError
from transcribe.audio.recording import Hearing, Recording
from transcribe.config import ServiceConfig
from transcribe.engine import Engine, EngineError
from transcribe.formats import TranscriptionResult
from transcribe.languages import to_code
from transcribe.model_cache.cache_info import CacheError
from transcribe.speakers import words
from transcribe.subtitles import SubtitleOptions
from transcribe.subtitles.rules import FASTEST, MOST_LINES, NARROWEST, SLOWEST, WIDEST
from transcribe.types import DecodeOptions, Segment, SpeakerOptions, Transcript
from transcribe.worker import main
from transcribe.worker.assembly import Assembly
from transcribe.worker.listener import Listener, warnings
from transcribe.worker.pieces import Pieces

EXIT_RECORDING = 1
EXIT_USAGE = 2


def run(config: ServiceConfig, options: argparse.Namespace) -> int:
    """Transcribes options.file, prints the text and writes the result files; returns the exit code."""
    try:
        wanted, subtitles = decode_options(config, options), subtitle_options(options)
        with Decoder(options.file, config.limits) as decoder:
            next(iter(decoder), None)  # a bad file is refused before the model is loaded
        hearing = Hearing(wanted.channels, wanted.audio_stream)
        began = time.monotonic()
        loaded = main.load(config)
        ready = time.monotonic()
        with Recording(options.file, config.limits, loaded.vad, hearing) as recording:
            listener = Listener.alone(loaded.speakers, wanted)
            answer = replace(transcribe(loaded.engine, recording, wanted, listener), subtitles=subtitles)
        took = time.monotonic() - ready
        written = write(answer, options.output or config.results, options.formats)
    except ValueError as error:
        return _fail(str(error), EXIT_USAGE)
    except AudioError as error:
        to_blame = options.file if error.param == "file" else f"--{error.param.replace('_', '-')}"
        return _fail(f"{to_blame}: {error.message}", EXIT_RECORDING)
    except (CacheError, EngineError, main.VadError) as error:
        return _fail(str(error), main.EXIT_CONFIG)
    except DecoderError as error:
        return _fail(str(error), main.EXIT_BROKEN)
    except OSError as error:
        return _fail(f"cannot write the result: {error}", main.EXIT_BROKEN)
    print(formats.text(answer), end="")
    seconds = answer.transcript.duration
    speed = f"{seconds:.1f} s of sound in {took:.1f} s, {seconds / max(took, 1e-3):.0f} × real time"
    names = ", ".join(map(str, written))
    for warning in formats.warnings(answer):
        print(f"transcribe_optimized: {warning}", file=sys.stderr)
    print(f"{speed}; model loaded in {ready - began:.1f} s; {names}", file=sys.stderr)
    return 0


def decode_options(config: ServiceConfig, options: argparse.Namespace) -> DecodeOptions:
    """What the command line asks of the model. Raises ValueError for an unknown language."""
    candidates = tuple(dict.fromkeys(_code(name) for name in options.languages.split(",") if name.strip()))
    multilingual = options.multilingual or (options.language == "auto" and len(candidates) > 1)
    if options.multilingual and options.language not in (None, "", "auto"):
        raise ValueError("--multilingual finds the languages out: leave --language out, or say auto")
    asked = options.language
    if asked is None:
        asked = config.model.language if not candidates else candidates[0] if len(candidates) == 1 else "auto"
    language = None if multilingual or asked in ("", "auto") else _code(asked)
    task = options.task or config.model.task
    with_words = options.words or bool({"srt", "vtt"}.intersection(options.formats))
    return DecodeOptions(
        language=language,
        candidates=candidates,
        multilingual=multilingual,
        task=task,
        prompt=options.prompt,
        words=with_words,
        channels=options.channels,
        audio_stream=options.audio_stream,
        speakers=SpeakerOptions() if options.speakers or "diarized_json" in options.formats else None,
    )


def _code(name: str) -> str:
    code = to_code(name)
    if code is None:
        raise ValueError(f"no language is called {name!r}: use a code such as sv, or auto")
    return code


def subtitle_options(options: argparse.Namespace) -> SubtitleOptions:
    """How the command line wants subtitles. Raises ValueError."""
    for name, low, high in (
        ("max_line_width", NARROWEST, WIDEST),
        ("max_line_count", 1, MOST_LINES),
        ("max_cps", SLOWEST, FASTEST),
    ):
        if not low <= getattr(options, name) <= high:
            raise ValueError(f"--{name} must be a number from {low:g} to {high:g}")
    return SubtitleOptions(
        max_line_width=options.max_line_width,
        max_line_count=options.max_line_count,
        max_cps=options.max_cps,
        highlight_words=options.highlight_words,
        raw=options.subtitles == "raw",
    )


def transcribe(
    engine: Engine, recording: Recording, options: DecodeOptions, listener: Listener | None = None
) -> TranscriptionResult:
    """The recording's text, with speakers if there is a listener. A language that is not given is that of the first
    chunk, of each channel that is heard by itself."""
    assembly, segments = Assembly(), list[Segment]()
    granularities = ("segment", "word") if options.words else ("segment",)
    pieces = Pieces(options, {})
    flying: dict[int, AudioChunk] = {}
    chunks = enumerate(chunk for step in recording for chunk in step)
    waiting = next(chunks, None)
    while waiting or flying:
        if waiting and engine.room():
            number, chunk = waiting
            heard = options.language or assembly.language_of(chunk.channel)
            free = all(other.channel != chunk.channel for other in flying.values())
            if heard or free or options.multilingual:
                for piece in pieces.begin(number, chunk, heard):
                    engine.add(piece)
                flying[number] = chunk
                if listener:
                    listener.hear([chunk])
                waiting = next(chunks, None)
                continue  # as long as there is room: nothing else waits for the engine
        for result in engine.step():
            following, whole = pieces.take(result)
            for piece in following:
                engine.add(piece)
            if whole is not None:
                assert isinstance(whole.key, int)
                segments += assembly.add(whole.key, flying.pop(whole.key), whole, options.prompt, options.hotwords)
    segments += assembly.flush()
    if listener and (track := listener.track()):
        segments = words.assign(segments, track, engine.encode)
    language = options.language or assembly.language or "en"
    transcript = Transcript(language, round(recording.seconds, 3), tuple(segments))
    assembly.coverage.note(recording.missing, warnings(recording, options))
    return TranscriptionResult(transcript, options.task, granularities, coverage=assembly.coverage.report())


def write(answer: TranscriptionResult, folder: Path, wanted: list[str]) -> list[Path]:
    """Writes optimized_result_<time>.<format> for each format. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now().astimezone().strftime("%Y%m%d_%H%M%S_%f")
    written = []
    for name in wanted:
        suffix = name.replace("_json", ".json")
        path = folder / f"optimized_result_{stamp}.{suffix}"
        if name in formats.JSON_WRITERS:
            body = (json.dumps(formats.JSON_WRITERS[name](answer), ensure_ascii=False, indent=2) + "\n").encode()
        elif name in formats.FILE_WRITERS:
            body = formats.FILE_WRITERS[name][1](answer)
        else:
            body = formats.TEXT_WRITERS["text" if name == "txt" else name][1](answer).encode()
        with path.open("xb") as file:  # a new file: no link that waits there is followed
            file.write(body)
        written.append(path)
    return written


def _fail(message: str, code: int) -> int:
    print(f"transcribe_optimized: {message}", file=sys.stderr)
    return code
