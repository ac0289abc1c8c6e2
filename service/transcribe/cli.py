"""The command line's way: one recording, in this process, with the worker's parts but without its queue."""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from transcribe import cli_options, formats
from transcribe.audio.chunking import AudioChunk
from transcribe.audio.decoder import AudioError, Decoder
from transcribe.audio.errors import DecoderError
from transcribe.audio.recording import Hearing, Recording
from transcribe.config import ServiceConfig
from transcribe.engine import Engine, EngineError
from transcribe.formats import TranscriptionResult
from transcribe.model_cache.cache_info import CacheError
from transcribe.provenance import Provenance, Work, key_file
from transcribe.records import RecordError, digest_of
from transcribe.speakers import words
from transcribe.types import DecodeOptions, Segment, Transcript
from transcribe.worker import main
from transcribe.worker.assembly import Assembly
from transcribe.worker.listener import Listener, warnings
from transcribe.worker.main import LoadedModel
from transcribe.worker.pieces import Pieces

EXIT_RECORDING = 1
EXIT_USAGE = 2


class UnusableError(Exception):
    """A file that the command line names cannot be used. The message is one line."""


EXITS: dict[type[Exception], int] = {  # the first that fits
    RecordError: main.EXIT_CONFIG,
    UnusableError: EXIT_RECORDING,
    ValueError: EXIT_USAGE,
    CacheError: main.EXIT_CONFIG,
    EngineError: main.EXIT_CONFIG,
    main.VadError: main.EXIT_CONFIG,
    DecoderError: main.EXIT_BROKEN,
}


@dataclass(frozen=True)
class Wish:
    """What the command line asks for, once it is known that it can be done."""

    file: Path
    options: DecodeOptions
    known: list[tuple[str, Path]]  # speakers, each with a recording
    record: "ResultRecord | None"
    asked: str  # the option that asks for speakers; '' if none does


def run(config: ServiceConfig, options: argparse.Namespace) -> int:
    """Transcribes options.file, prints the text and writes the result files; returns the exit code."""
    try:
        _run(config, options)
    except OSError as error:
        return _fail(f"cannot write the result: {error}", main.EXIT_BROKEN)
    except tuple(EXITS) as error:
        return _fail(str(error), next(code for kind, code in EXITS.items() if isinstance(error, kind)))
    return 0


def _run(config: ServiceConfig, options: argparse.Namespace) -> None:
    subtitles = cli_options.subtitle_options(options)
    wish = _wish(config, options)
    folder = options.output or config.results
    _prepare(folder)  # an hour's work is not lost because there is no place for it
    began = time.monotonic()
    loaded = main.load(config)
    ready = time.monotonic()
    answer = replace(_hear(config, loaded, wish), subtitles=subtitles, logprobs=options.logprobs)
    took = time.monotonic() - ready
    try:
        written = write(answer, folder, options.formats)
    finally:  # a full disk does not cost the text
        print(formats.text(answer), end="")
    said = [*formats.warnings(answer), *(line for name in options.formats for line in formats.hurried(answer, name))]
    if wish.record:
        written.append(wish.record.write(answer, wish.options))
        said.append(f"the record is signed with {wish.record.key}")
    for line in dict.fromkeys(said):
        print(f"transcribe_optimized: {line}", file=sys.stderr)
    seconds = answer.transcript.duration
    speed = f"{seconds:.1f} s of sound in {took:.1f} s, {seconds / max(took, 1e-3):.0f} × real time"
    names = ", ".join(map(str, written))
    print(f"{speed}; model loaded in {ready - began:.1f} s; {names}", file=sys.stderr)


def _wish(config: ServiceConfig, options: argparse.Namespace) -> Wish:
    """What is asked for. Bad files are refused here, before the model is loaded. Raises ValueError, RecordError and
    UnusableError."""
    wanted, known = cli_options.decode_options(config, options), cli_options.known_speakers(options)
    for blamed, file in ((str(options.file), options.file), *((_reference(*one), one[1]) for one in known)):
        try:
            with Decoder(file, config.limits) as decoder:
                next(iter(decoder), None)
        except AudioError as error:
            raise UnusableError(f"{blamed}: {error.message}") from None
    record = ResultRecord.of(config, options.file, options.record) if options.record else None
    return Wish(options.file, wanted, known, record, cli_options.asking_for_speakers(options))


def _prepare(folder: Path) -> None:
    """Makes the folder for results. Raises ValueError if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        message = f"--output: {folder} cannot be written to ({error.strerror}): name another folder"
        raise ValueError(message) from None


def _reference(name: str, file: Path) -> str:
    """How an error names the recording of a known voice."""
    return f"{cli_options.KNOWN} {name}={file}"


def _hear(config: ServiceConfig, loaded: LoadedModel, wish: Wish) -> TranscriptionResult:
    """The recording's text. Raises UnusableError."""
    hearing = Hearing(wish.options.channels, wish.options.audio_stream)
    try:
        listener = Listener.alone(loaded.speakers, wish.options)
        if listener:
            _learn(config, loaded, listener, wish.known)
        with Recording(wish.file, config.limits, loaded.vad, hearing) as recording:
            answer = transcribe(loaded.engine, recording, wish.options, listener)
    except AudioError as error:
        to_blame = {"file": str(wish.file), "speakers": wish.asked}.get(error.param)
        to_blame = to_blame or f"--{error.param.replace('_', '-')}"
        raise UnusableError(f"{to_blame}: {error.message}") from None
    return replace(answer, model=f"{loaded.info.model_id}@{loaded.info.model_revision}")


def _learn(config: ServiceConfig, loaded: LoadedModel, listener: Listener, known: list[tuple[str, Path]]) -> None:
    """Listens to the known voices. Raises UnusableError."""
    for name, file in known:
        try:
            with Recording(file, config.limits, loaded.vad) as voice:
                listener.learn(name, voice)
        except AudioError as error:
            raise UnusableError(f"{_reference(name, file)}: {error.message}") from None


class ResultRecord:
    """The signed record that is to be written: of which recording, where to, and with which `key` (in words)."""

    def __init__(self, provenance: Provenance, audio: Path, path: Path, key: str) -> None:
        self.key = key
        self._provenance, self._audio, self._path = provenance, audio, path
        self._began, self._heard = time.time(), _facts(audio)

    @classmethod
    def of(cls, config: ServiceConfig, audio: Path, path: Path) -> "ResultRecord":
        """One that the key of this root folder signs, which is the service's own where there is a service; it is made
        if there is none. Raises ValueError for the path, and RecordError for the key."""
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise ValueError(f"--record: {path} cannot be written: name a file in a folder that exists")
        if path.exists() and path.samefile(audio):
            raise ValueError(f"--record: {path} is the recording: name another file")
        file = key_file(config)
        which = "the key" if file.exists() else "a new key,"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            provenance = Provenance.of(config)
        except RecordError as error:
            raise RecordError(f"--record: {error}") from None
        except OSError as error:
            mend = f"; run this as the user {config.user}" if isinstance(error, PermissionError) else ""
            raise RecordError(f"--record: {error.filename or file} cannot be used ({error.strerror}){mend}") from None
        return cls(provenance, audio, path, f"{which} {provenance.key.public}, of {file}")

    def write(self, answer: TranscriptionResult, options: DecodeOptions) -> Path:
        """Writes it; returns where to. Raises UnusableError if the recording is another by now, and OSError."""
        if _facts(self._audio) != self._heard:
            raise UnusableError(f"--record: {self._audio} was changed while it was heard, so there is no record")
        work = Work(
            audio=self._heard,
            transcript=answer.transcript,
            options=options,
            model=answer.model,
            coverage=answer.coverage,
            times={"created": self._began, "started": self._began, "finished": time.time()},
        )
        signed = self._provenance.record(work)
        self._path.write_text(json.dumps(signed, ensure_ascii=False) + "\n", encoding="utf-8")
        return self._path


def _facts(audio: Path) -> dict[str, Any]:
    return {"sha256": digest_of(audio), "bytes": audio.stat().st_size}


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
    language = "en" if options.task == "translate" else options.language or assembly.language or "en"
    transcript = Transcript(language, round(recording.seconds, 3), tuple(segments))
    assembly.coverage.note(recording.missing, warnings(recording, options))
    return TranscriptionResult(transcript, options.task, granularities, coverage=assembly.coverage.report())


def write(answer: TranscriptionResult, folder: Path, wanted: list[str]) -> list[Path]:
    """Writes optimized_result_<time>.<format> for each format. Raises OSError."""
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
