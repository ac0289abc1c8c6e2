"""Recordings as people's programs make them: each is the clip, or a part of it, in a container with ideas of its own.

The tables say what each must give: where the clip begins (seconds from the container's start), what is missing, and
what is said of it. Every file is made here, by ffmpeg or by hand.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from transcribe.types import SAMPLE_RATE

from support.bad_files import CLIP, SECONDS, ffmpeg

Made = Callable[[Path], Path]  # makes the file in a folder
Samples = NDArray[np.float64]
Change = Callable[[Samples], Samples]
COARSE = SAMPLE_RATE // 100  # samples of the loudness by which the clip is found again


@dataclass(frozen=True)
class Case:
    """`starts`: where the clip begins. `missing`: seconds that are promised and not there; None where nobody can know
    it but something is said. `warning`: a part of what is said."""

    name: str
    make: Made
    starts: tuple[float, ...] = (0.0,)
    missing: float | None = 0.0
    warning: str = ""


def made(folder: Path, name: str, *arguments: str | Path) -> Path:
    path = folder / name
    ffmpeg(*arguments, path)
    return path


def content(path: Path) -> bytes:
    return path.read_bytes()


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def with_picture(folder: Path, name: str, *codecs: str, late: float = 0.0, picture: float = 12.0) -> Path:
    """The clip beside a picture that lasts so long, of 60 images at most; the sound starts late."""
    shown = ("-f", "lavfi", "-i", f"testsrc=s=64x48:r={min(5.0, 60 / picture)}:d={picture}")
    return made(folder, name, *shown, "-itsoffset", str(late), "-i", CLIP, *codecs)


def paused(folder: Path, name: str, pause: float, *codecs: str) -> Path:
    """The clip twice, with a pause between that only the timestamps know of."""
    part = made(folder, f"part-{name}", "-i", CLIP, *codecs)
    listed = folder / f"{name}.txt"
    listed.write_text(f"file '{part}'\nduration {SECONDS + pause}\nfile '{part}'\n")
    return made(folder, name, "-f", "concat", "-safe", "0", "-i", listed, "-c", "copy")


def later_segment(folder: Path, name: str, *codecs: str) -> Path:
    """The second of the segments that a recorder writes, with the clock of the whole: it holds the clip."""
    form = name.replace(".", "-%d.")
    ffmpeg(
        *("-i", CLIP, "-i", CLIP, "-filter_complex", "[0:a]apad=whole_dur=8[a];[a][1:a]concat=n=2:v=0:a=1"),
        *codecs,
        *("-f", "segment", "-segment_times", "8", "-reset_timestamps", "0", folder / form),
    )
    return folder / form.replace("%d", "1")


def dash_piece(folder: Path, name: str) -> Path:
    """The head of a DASH stream and one of its later pieces."""
    for old in folder.glob("dash-*"):
        old.unlink()
    ffmpeg(
        *("-i", CLIP, "-i", CLIP, "-filter_complex", "[0:a]apad=whole_dur=8[a];[a][1:a]concat=n=2:v=0:a=1"),
        *("-c:a", "aac", "-f", "dash", "-seg_duration", "8", "-use_template", "1", "-use_timeline", "0"),
        *("-init_seg_name", "dash-head.m4s", "-media_seg_name", "dash-$Number$.m4s", folder / "dash.mpd"),
    )
    return written(folder, name, content(folder / "dash-head.m4s") + content(folder / "dash-2.m4s"))


def tracks(folder: Path, name: str, *graphs: str) -> Path:
    """A sound track for each filter graph, of the clip."""
    graph = ";".join(f"[0:a]{one}[t{number}]" for number, one in enumerate(graphs))
    maps = [argument for number in range(len(graphs)) for argument in ("-map", f"[t{number}]")]  # else only the first
    return made(folder, name, "-i", CLIP, "-filter_complex", graph, *maps)


def cut(folder: Path, name: str, *arguments: str, share: float = 0.6) -> Path:
    """The first part of the file's bytes."""
    whole = content(made(folder, f"whole-{name}", "-i", CLIP, *arguments))
    return written(folder, name, whole[: int(len(whole) * share)])


def joined(folder: Path, name: str, *arguments: str) -> Path:
    """Two files, one behind the other."""
    whole = content(made(folder, f"one-{name}", "-i", CLIP, *arguments))
    return written(folder, name, whole + whole)


def lost_pages(folder: Path) -> Path:
    """An Ogg stream that lost a second of its pages behind the third second."""
    whole = content(made(folder, "pages.opus", "-i", CLIP, "-c:a", "libopus", "-page_duration", "200000"))
    pages = [b"OggS" + page for page in whole.split(b"OggS")[1:]]
    return written(folder, "lost.opus", b"".join(pages[:17] + pages[22:]))


def with_subtitles(folder: Path) -> Path:
    """Subtitles that last longer than sound."""
    (folder / "long.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nHi\n\n2\n00:09:00,000 --> 00:10:00,000\nBye\n")
    return made(folder, "subtitles.mkv", "-i", CLIP, "-i", folder / "long.srt", "-c:a", "flac", "-c:s", "srt")


def with_chapters(folder: Path) -> Path:
    """Chapters behind the end of the sound."""
    (folder / "chapters.txt").write_text(
        ";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1\nSTART=0\nEND=5\ntitle=Duration: 09:00:00.00\n"
        "[CHAPTER]\nTIMEBASE=1/1\nSTART=5\nEND=3600\ntitle=End\n"
    )
    return made(folder, "chapters.m4a", "-i", CLIP, "-i", folder / "chapters.txt", "-map_metadata", "1")


def waved(folder: Path, name: str, change: Change, subtype: str = "PCM_16") -> Path:
    """The clip's samples, changed, as a WAV with a channel for each column."""
    samples, rate = soundfile.read(CLIP)
    soundfile.write(folder / name, change(samples), rate, subtype=subtype)
    return folder / name


def coded(path: Path, form: str) -> Path:
    """The same in another format."""
    return made(path.parent, f"{path.stem}.{form}", "-i", path)


SILENT, SAME, HISS = "volume=0", "anull", "aeval=0.01*(random(0)-0.5):c=same"
OPUS, AAC, MP3, FLAC = ("-c:a", "libopus"), ("-c:a", "aac"), ("-c:a", "mp3"), ("-c:a", "flac")
MPEG4, VP8, MPEG2 = ("-c:v", "mpeg4"), ("-c:v", "libvpx"), ("-c:v", "mpeg2video", "-r", "25")
TAG = "comment=Duration: 05:12:33.00"
WALL_CLOCK = ("-output_ts_offset", "18000")  # five hours
FRAGMENTED = ("-movflags", "frag_keyframe+empty_moov+default_base_moof")

LENGTHS = [
    Case("mp4, picture longer", lambda f: with_picture(f, "a.mp4", *MPEG4, *AAC)),
    Case("mkv, picture longer", lambda f: with_picture(f, "a.mkv", *MPEG4, *OPUS)),
    Case("webm, picture longer", lambda f: with_picture(f, "a.webm", *VP8, *OPUS)),
    Case("avi, picture longer", lambda f: with_picture(f, "a.avi", *MPEG4, *MP3)),
    Case("mpegts, picture longer", lambda f: with_picture(f, "a.ts", *MPEG2, *AAC)),
    Case("flv, picture longer", lambda f: with_picture(f, "a.flv", "-c:v", "flv", "-c:a", "mp3", "-ar", "22050")),
    Case("mov, picture an hour", lambda f: with_picture(f, "h.mov", *MPEG4, "-c:a", "pcm_s16le", picture=3600)),
    Case("subtitles longer", with_subtitles),
    Case("chapters longer, one named as a duration", with_chapters),
    Case("m4a, later track longer", lambda f: tracks(f, "b.m4a", "anull", "apad=whole_dur=30"), (0,), 0, "track 2"),
    Case("mka, later track longer", lambda f: tracks(f, "b.mka", "anull", "apad=whole_dur=30"), (0,), 0, "track 2"),
    Case("mp3, tag", lambda f: made(f, "tag.mp3", "-i", CLIP, "-metadata", TAG)),
    Case("ogg, tag", lambda f: made(f, "tag.ogg", "-i", CLIP, "-metadata", TAG)),
    Case("m4a, tag", lambda f: made(f, "tag.m4a", "-i", CLIP, "-metadata", TAG)),
    Case("mkv, tag", lambda f: made(f, "tag.mkv", "-i", CLIP, "-metadata", "DURATION=05:12:33.00")),
    Case("mkv, later segment", lambda f: later_segment(f, "s.mkv", *OPUS)),
    Case("webm, later segment", lambda f: later_segment(f, "s.webm", *OPUS)),
    Case("mpegts, later segment", lambda f: later_segment(f, "s.ts", *AAC)),
    Case("m4a, later segment", lambda f: later_segment(f, "s.m4a", *AAC)),
    Case("dash piece", lambda f: dash_piece(f, "piece.mp4")),
    Case("mkv, clock of hours", lambda f: made(f, "c.mkv", "-i", CLIP, *OPUS, *WALL_CLOCK)),
    Case("mpegts, clock of hours", lambda f: made(f, "c.ts", "-i", CLIP, *AAC, *WALL_CLOCK)),
    Case("fragmented mp4, clock of hours", lambda f: made(f, "c.mp4", "-i", CLIP, *AAC, *FRAGMENTED, *WALL_CLOCK)),
    Case("webm of a live recorder", lambda f: made(f, "l.webm", "-i", CLIP, *OPUS, "-live", "1")),
    Case("mp3, cut by bytes", lambda f: cut(f, "x.mp3"), (0,), 2.55, "cut off"),
    Case("mp3 of variable rate, cut by bytes", lambda f: cut(f, "v.mp3", "-q:a", "4"), (0,), 2.55, "cut off"),
    Case("flac, cut", lambda f: cut(f, "x.flac"), (0,), 2.6, "cut off"),
    Case("m4a, cut", lambda f: cut(f, "x.m4a", "-movflags", "+faststart"), (0,), 2.53, "cut off"),
    Case("mkv, cut", lambda f: cut(f, "x.mkv", *OPUS), (0,), 2.55, "cut off"),
    Case("tta, cut", lambda f: cut(f, "x.tta", share=0.8), (0,), 1.9, "cut off"),
    Case("wav, cut", lambda f: cut(f, "x.wav"), (0,), 2.42, "cut off"),
    Case("aiff, cut", lambda f: cut(f, "x.aiff"), (0,), 2.42, "cut off"),
    Case("au, cut", lambda f: cut(f, "x.au", share=0.5), (0,), 3.03, "cut off"),
    Case("avi, cut", lambda f: cut(f, "x.avi", *MP3), (0,), None, "cut off"),
    Case("wma, cut", lambda f: cut(f, "x.wma"), (0,), None, "cut off"),
    Case("ogg, lost pages", lost_pages, (0,), None, "some of its sound is missing"),
    Case("mp3, two joined", lambda f: joined(f, "j.mp3"), (0, 6.08)),
    Case("ogg, two joined", lambda f: joined(f, "j.opus", *OPUS), (0, 6.05)),
    Case("mpegts, two joined", lambda f: joined(f, "j.ts", *AAC), (0, 6.2)),
    Case("aac, two joined", lambda f: joined(f, "j.aac", *AAC), (0, 6.15)),
    Case("flac, two joined", lambda f: joined(f, "j.flac"), (0, 6.05)),
]
TIMES = [
    Case("mkv, 1.3 s late", lambda f: with_picture(f, "t.mkv", *MPEG4, *OPUS, late=1.3), (1.3,)),
    Case("mp4, 3 s late", lambda f: with_picture(f, "t.mp4", *MPEG4, *AAC, late=3), (3.0,)),
    Case("mov, 2.5 s late", lambda f: with_picture(f, "t.mov", *MPEG4, "-c:a", "pcm_s16le", late=2.5), (2.5,)),
    Case("mpegts, 2 s late", lambda f: with_picture(f, "t.ts", *MPEG2, *AAC, late=2), (2.0,)),
    Case("webm, 4 s late", lambda f: with_picture(f, "t.webm", *VP8, *OPUS, late=4), (4.0,)),
    Case("flv, 1 s late", lambda f: with_picture(f, "t.flv", "-c:v", "flv", *MP3, "-ar", "22050", late=1), (1.0,)),
    Case("webm, pause of 9 s", lambda f: paused(f, "p.webm", 9, *OPUS), (0, 15.05)),
    Case("mkv, pause of 90 s", lambda f: paused(f, "p.mkv", 90, *AAC), (0, 96.05)),
    Case("m4a, pause of 5 s", lambda f: paused(f, "p.m4a", 5, *AAC), (0, 11.05)),
    Case("mpegts, pause of 7 s", lambda f: paused(f, "p.ts", 7, *AAC), (0, 13.05)),
    Case("nut, pause of 20 s", lambda f: paused(f, "p.nut", 20, *FLAC), (0, 26.05)),
]
FORMS: dict[str, tuple[str, ...]] = {  # by the name's ending, what ffmpeg needs to make one
    "wav": (), "w64": (), "aiff": (), "au": (), "caf": (), "voc": (), "sox": (), "mp3": (), "mp2": (), "m4a": (),
    "aac": (), "ac3": (), "eac3": (), "flac": (), "ogg": (), "opus": (), "spx": ("-c:a", "libspeex"), "tta": (),
    "wv": (), "wma": (), "mka": FLAC, "webm": OPUS, "mov": AAC, "3gp": AAC, "avi": MP3, "flv": AAC, "ts": AAC,
    "mpg": ("-c:a", "mp2", "-ar", "44100"), "nut": FLAC, "rm": ("-c:a", "ac3"),
    "swf": ("-c:a", "mp3", "-ar", "44100"), "dts": ("-c:a", "dca", "-strict", "-2"), "wtv": ("-c:a", "mp2"),
    "gsm": ("-c:a", "libgsm", "-ar", "8000"), "mlp": ("-strict", "-2"), "latm": (*AAC, "-f", "latm"),
}  # fmt: skip
PICTURED: dict[str, tuple[str, ...]] = {  # those that must have a picture
    "mxf": (*MPEG2, "-ar", "48000"),
    "gxf": ("-s", "720x576", *MPEG2, "-ar", "48000"),
    "dv": ("-s", "720x576", "-r", "25", "-c:v", "dvvideo", "-pix_fmt", "yuv420p", "-ar", "48000", "-ac", "2"),
    "vob": (*MPEG2, "-c:a", "mp2", "-ar", "48000"),
}


def plain_form(form: str) -> Case:
    return Case(form, lambda folder: made(folder, f"form.{form}", "-i", CLIP, *FORMS[form]))


def pictured_form(form: str) -> Case:
    return Case(form, lambda folder: with_picture(folder, f"form.{form}", *PICTURED[form], picture=6))


FORMATS = [*map(plain_form, FORMS), *map(pictured_form, PICTURED)]


def loud(decibels: float) -> Change:
    """The clip as loud as that, by its root mean square below full scale."""
    return lambda clip: clip * (10 ** (decibels / 20) / np.sqrt(np.square(clip).mean()))


def near_and_far(clip: Samples) -> Samples:
    """Somebody beside the microphone, and somebody across the room."""
    return np.concatenate([loud(-20)(clip), loud(-50)(clip)])


def noisy(decibels: float, noise: Change) -> Change:
    """The clip, 10 dB above a noise."""

    def change(clip: Samples) -> Samples:
        return loud(decibels)(clip) + loud(decibels - 10)(noise(clip))

    return change


def hiss(clip: Samples) -> Samples:
    noise: Samples = np.random.default_rng(7).normal(size=len(clip))
    return noise


def hum(clip: Samples) -> Samples:
    moments = np.arange(len(clip)) / SAMPLE_RATE
    harmonics = np.arange(1, 8)[:, None]
    tones: Samples = (np.sin(2 * np.pi * 50 * harmonics * moments) / harmonics).sum(0)
    return tones


def music(clip: Samples) -> Samples:
    """Chords of tones that die away, four a second."""
    chance, length = np.random.default_rng(3), int(0.6 * SAMPLE_RATE)
    moments = np.arange(length) / SAMPLE_RATE
    found = np.zeros(len(clip) + length)
    for at in range(0, len(clip), SAMPLE_RATE // 4):
        for step in chance.choice([0, 2, 4, 5, 7, 9, 11, 12, 14, 16], 3):
            pitch = 220 * 2 ** (step / 12)
            for number in range(1, 7):
                tone = np.sin(2 * np.pi * pitch * number * moments) / number
                found[at : at + length] += tone * np.exp(-3 * moments)
    return found[: len(clip)]


def channels(*gains: float) -> Change:
    """A channel for each gain."""
    return lambda clip: clip[:, None] * np.array(gains)


def with_hum_in_both(clip: Samples) -> Samples:
    """Of opposite polarity, with a hum of one."""
    return channels(1, -1)(clip) + 0.2 * hum(clip)[:, None]


LEVELS = [
    *(Case(f"{level} dB", partial(waved, name="level.wav", change=loud(level))) for level in (-30, -40, -45, -50)),
    Case("-55 dB in 24 bits", lambda f: waved(f, "level.wav", loud(-55), "PCM_24")),
    Case("-50 dB, 10 dB above hiss", lambda f: waved(f, "level.wav", noisy(-50, hiss))),
    Case("-45 dB, 10 dB above hum", lambda f: waved(f, "level.wav", noisy(-45, hum))),
    Case("-45 dB on an offset", lambda f: waved(f, "level.wav", lambda clip: loud(-45)(clip) + 0.2)),
    Case("-50 dB in mp3", lambda f: coded(waved(f, "level.wav", loud(-50)), "mp3")),
    Case("near and far", lambda f: waved(f, "level.wav", near_and_far), (0, 6.05)),
    Case("in the scale of integers", lambda f: waved(f, "level.wav", lambda clip: clip * 20_000, "FLOAT")),
]
POLARITIES = [
    Case("wav", lambda f: waved(f, "polarity.wav", channels(1, -1))),
    Case("flac, quieter", lambda f: coded(waved(f, "polarity.wav", channels(0.02, -0.02)), "flac")),
    Case("mp3", lambda f: coded(waved(f, "polarity.wav", channels(1, -1)), "mp3")),
    Case("opus", lambda f: coded(waved(f, "polarity.wav", channels(1, -1)), "opus")),
    Case("m4a, unequal", lambda f: coded(waved(f, "polarity.wav", channels(1, -0.7)), "m4a")),
    Case("of six channels", lambda f: waved(f, "polarity.wav", channels(1, -1, 0, 0, 1, -1))),
    Case("a hum in both", lambda f: waved(f, "polarity.wav", with_hum_in_both)),
    Case("one channel silent", lambda f: waved(f, "polarity.wav", channels(0, 1))),
    Case("the same", lambda f: waved(f, "polarity.wav", channels(1, 1))),
]
SECOND = "Sound track 2 of"
TRACKS = [
    Case("m4a, first silent", lambda f: tracks(f, "first.m4a", SILENT, SAME), (0,), 0, SECOND),
    Case("mka, first silent", lambda f: tracks(f, "first.mka", SILENT, SAME), (0,), 0, SECOND),
    Case("mov, first silent", lambda f: tracks(f, "first.mov", SILENT, SAME), (0,), 0, SECOND),
    Case("mpegts, first silent", lambda f: tracks(f, "first.ts", SILENT, SAME), (0,), 0, SECOND),
    Case("mka, third speaks", lambda f: tracks(f, "third.mka", SILENT, HISS, SAME), (0,), 0, "Sound track 3 of 3"),
    Case("m4a, first hisses", lambda f: tracks(f, "hiss.m4a", HISS, SAME), (0,), 0, SECOND),
    Case("mka, both speak", lambda f: tracks(f, "both.mka", SAME, SAME), (0,), 0, "track 2 was not"),
]


def loudness(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """The root mean square of each hundredth of a second."""
    whole = len(samples) // COARSE * COARSE
    found: NDArray[np.float64] = np.sqrt(np.square(samples[:whole].astype(np.float64)).reshape(-1, COARSE).mean(1))
    return found


def joined_blocks(blocks: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate([*blocks, np.zeros(0, np.float32)])


def places(samples: NDArray[np.float32], clip: NDArray[np.float32], seconds: float = 2.0) -> list[float]:
    """Where the clip's first seconds begin in the samples, by their loudness alone; in order, in seconds."""
    pattern, whole = loudness(clip)[: int(seconds * 100)], loudness(samples)
    pattern = (pattern - pattern.mean()) / pattern.std()
    padded = np.pad(whole, (0, len(pattern)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(pattern))
    centred = windows - windows.mean(1, keepdims=True)
    likeness = (centred @ pattern) / (np.sqrt(np.square(centred).mean(1)) + 1e-9) / len(pattern)
    found: list[float] = []
    while likeness.max() > 0.8:
        at = int(likeness.argmax())
        found.append(at / 100)
        likeness[max(0, at - 200) : at + 200] = 0
    return sorted(found)
