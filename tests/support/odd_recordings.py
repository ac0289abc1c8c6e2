"""Recordings with odd headers, clocks and tags: more of what people's programs make, in the tables' form of
support/recordings.py."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from support import handmade
from support.bad_files import CLIP, SECONDS
from support.handmade import DATA, EXTENSIBLE, FMT, SOUND, ape, id3, plain_mp3, promising, riff_chunk, wav
from support.recordings import (
    AAC,
    FORMS,
    FRAGMENTED,
    MPEG2,
    MPEG4,
    OPUS,
    SAME,
    SECOND,
    WALL_CLOCK,
    Case,
    Made,
    Samples,
    channels,
    coded,
    content,
    cut,
    loud,
    made,
    paused,
    tracks,
    waved,
    with_picture,
    written,
)

CUT = "cut off"


def file(name: str, data: bytes, share: float = 1.0) -> Made:
    """These bytes, or the first share of them."""
    return lambda folder: written(folder, name, data[: int(len(data) * share)])


def built(name: str, build: Callable[[Path], bytes], share: float = 1.0) -> Made:
    """The same of what is made in the folder."""
    return lambda folder: file(name, build(folder), share)(folder)


def mp3(before: bytes = b"", after: bytes = b"", share: float = 1.0, **counts: int) -> Made:
    """The clip between these bytes, of whose frames only the first share is there."""

    def make(folder: Path) -> Path:
        whole = promising(plain_mp3(folder), **counts)
        return written(folder, "odd.mp3", before + whole[: int(len(whole) * share)] + after)

    return make


def repeated(name: str, times: int, pace: float, *codecs: str) -> Case:
    """The clip so many times, with timestamps that go at another pace than its samples."""
    looped: tuple[str | Path, ...] = (
        "-stream_loop",
        str(times - 1),
        "-i",
        CLIP,
        *codecs,
        "-bsf:a",
        f"setts=ts=TS*{pace}",
    )
    starts = tuple(SECONDS * pace * number for number in range(times))
    return Case(f"{name}, clock at a pace of {pace}", lambda folder: made(folder, f"pace.{name}", *looped), starts)


def clocks_of(folder: Path, *starts: float) -> Path:
    """Transport streams behind one another, each with a clock of its own."""
    parts = [
        content(made(folder, "clock.ts", "-i", CLIP, *AAC, "-output_ts_offset", str(at), "-muxdelay", "0"))
        for at in starts
    ]
    return written(folder, "clocks.ts", b"".join(parts))


def behind(name: str, *kinds: tuple[str, ...], share: float = 1.0) -> Made:
    """Files of these kinds behind one another, of the last only a share; `name` is theirs, unless a kind begins with an
    ending of its own."""

    def make(folder: Path) -> Path:
        parts = list[bytes]()
        for number, kind in enumerate(kinds):
            own = kind[:1] if kind and not kind[0].startswith("-") else ()
            parts.append(content(made(folder, ".".join((f"{number}-{name}", *own)), "-i", CLIP, *kind[len(own) :])))
        return written(folder, name, b"".join([*parts[:-1], parts[-1][: int(len(parts[-1]) * share)]]))

    return make


def joined(*forms: str, starts: tuple[float, ...] = ()) -> Case:
    """Files behind one another, of several formats or of the same."""
    kinds = ((form, *(FORMS[form] if form != "ogg" else VORBIS)) for form in forms)
    times = starts or tuple(SECONDS * number for number in range(len(forms)))
    return Case(", then ".join(forms), behind("joined", *kinds), times)


def bare(folder: Path, form: str, begin: float, end: float) -> Path:
    """A part of the bytes of a stream without a head, which holds the clip twice."""
    kind = BARE[form]
    whole = content(made(folder, f"bare.{form}", "-stream_loop", "1", "-i", CLIP, *kind))
    return written(folder, "upload", whole[int(len(whole) * begin) : int(len(whole) * end)])


def with_empty_edit(folder: Path, name: str, late: float, *codec: str) -> Path:
    return made(folder, name, "-itsoffset", str(late), "-i", CLIP, *codec)


def two_late(folder: Path) -> Path:
    return written(folder, "late.m4a", content(with_empty_edit(folder, "one.m4a", 2, *AAC)) * 2)


def on_the_air(folder: Path, *codec: str, rate: int) -> bytes:
    return handmade.ogg_from(content(made(folder, "air.ogg", "-i", CLIP, *codec)), 7200 * rate)


def trimmed(folder: Path, name: str) -> Path:
    """Three seconds were cut off by an edit list alone."""
    whole = made(folder, f"whole-{name}", "-i", CLIP, "-af", "adelay=3000", *AAC)
    return made(folder, name, "-ss", "3", "-i", whole, "-c", "copy")


def edit_of_an_hour(folder: Path) -> bytes:
    whole = content(made(folder, "edit.m4a", "-i", CLIP, *AAC))
    at = whole.index(b"elst") + 12
    return whole[:at] + struct.pack(">L", 3_600_000) + whole[at + 4 :]


def endless_box(folder: Path) -> bytes:
    """The samples' box has no size: it goes on to the end of the file."""
    whole = content(made(folder, "box.m4a", "-i", CLIP, *AAC, "-movflags", "+faststart"))
    at = whole.index(b"mdat") - 4
    return whole[:at] + bytes(4) + whole[at + 4 :]


def laced(folder: Path, codec: str, lacing: str) -> bytes:
    if codec == "mp3":
        return handmade.matroska(b"A_MPEG/L3", handmade.mp3_frames(folder), 36, lacing)
    if codec == "pcm":
        frames = [SOUND[at : at + 640] for at in range(0, len(SOUND) // 640 * 640, 640)]
        return handmade.matroska(b"A_PCM/INT/LIT", frames, 20, lacing)
    head, _, *packets = handmade.ogg_packets(content(made(folder, "laced.opus", "-i", CLIP, *OPUS)))
    return handmade.matroska(b"A_OPUS", packets, 20, lacing, private=head, rate=struct.pack(">d", 48_000))


def promising_hours(folder: Path) -> bytes:
    """A Matroska file of more than 1 MiB whose header says 5 h."""
    loops = ("-stream_loop", "6", "-i", CLIP, "-c:a", "pcm_s16le")
    whole = content(made(folder, "hours.mka", *loops))
    at = whole.index(b"\x44\x89\x88") + 3
    return whole[:at] + struct.pack(">d", 18_000_000) + whole[at + 8 :]


def without_end(folder: Path) -> bytes:
    pages = [*handmade.ogg_pages(content(made(folder, "end.opus", "-i", CLIP, *OPUS)))]
    return b"".join(pages[:-1])


def late_ts(folder: Path, name: str) -> Path:
    return with_picture(folder, name, *MPEG2, *AAC, late=2)


def late_behind_junk(folder: Path) -> Path:
    return written(folder, "junk.ts", bytes(100) + content(late_ts(folder, "late.ts")))


def in_the_centre(folder: Path, form: str, *codec: str) -> Path:
    six = waved(folder, "six.wav", channels(0, 0, 1, 0, 0, 0))
    return made(folder, f"centre.{form}", "-i", six, *codec)


def beep_and_far(clip: Samples) -> Samples:
    beep = 0.9 * np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    return np.concatenate([beep, np.zeros(8000), loud(-50)(clip)])


def near_far_near(clip: Samples) -> Samples:
    return np.concatenate([loud(-15)(clip), loud(-50)(clip), loud(-15)(clip)])


VORBIS = ("-c:a", "libvorbis")
BARE: dict[str, tuple[str, ...]] = {
    "mp2": (), "mp3": ("-write_xing", "0", "-id3v2_version", "0"), "dts": (*FORMS["dts"], "-b:a", "192k"),
    "mlp": FORMS["mlp"], "thd": ("-strict", "-2", "-ar", "48000"), "ac3": (), "eac3": (), "aac": (),
    "latm": FORMS["latm"],
}  # fmt: skip
AT_8, AT_16, AT_32, STEREO_44 = ("-ar", "8000"), ("-ar", "16000"), ("-ar", "32000"), ("-ar", "44100", "-ac", "2")
JITTER = "setts=ts=TS+60*eq(mod(N\\,10)\\,0)"
OVERLAP = -0.07
LATE = (2.0,)
OGV, WMV = ("-c:v", "libtheora", *VORBIS), ("-c:v", "wmv2", "-c:a", "wmav2")
CLOCKS = [
    repeated("mkv", 5, 1.01, *OPUS),
    repeated("mkv", 5, 0.99, *OPUS),
    repeated("webm", 3, 0.97, *OPUS),
    repeated("mp4", 3, 0.985, *AAC),
    Case("mkv, timestamps that jitter", lambda f: made(f, "j.mkv", "-i", CLIP, *OPUS, "-bsf:a", JITTER)),
    Case("mkv, clips that overlap", lambda f: paused(f, "o.mkv", OVERLAP, *OPUS), (0, SECONDS)),
    Case("mpegts, the clock wraps", lambda f: made(f, "w.ts", "-i", CLIP, *AAC, "-output_ts_offset", "95441")),
    Case("mpegts, clock half a day later", lambda f: clocks_of(f, 0, 40_000), (0, 6.2)),
    Case("mpegts, clock half a day earlier", lambda f: clocks_of(f, 40_000, 0), (0, 6.2)),
    Case("m2ts, 2 s late", lambda f: late_ts(f, "m.m2ts"), LATE),
    Case("mpegts behind junk, 2 s late", late_behind_junk, LATE),
    Case("ogv, 2 s late", lambda f: with_picture(f, "o.ogv", *OGV, late=2), LATE),
    Case("wmv, 2 s late", lambda f: with_picture(f, "o.wmv", *WMV, late=2), LATE),
    Case("mkv, 3 s late", lambda f: with_picture(f, "o.mkv", *MPEG4, *OPUS, late=3, picture=9), (3.0,)),
    Case("flv, clock of hours", lambda f: made(f, "h.flv", "-i", CLIP, "-c:a", "mp3", "-ar", "22050", *WALL_CLOCK)),
    Case("opus, on the air for hours", built("a.opus", lambda f: on_the_air(f, *OPUS, rate=48_000))),
    Case("vorbis, on the air for hours", built("a.ogg", lambda f: on_the_air(f, *VORBIS, rate=16_000))),
    Case("vorbis, two of different kinds joined", behind("c.ogg", (*VORBIS, *STEREO_44), VORBIS), (0, 6.05)),
    Case("vorbis, four times the rate joined", behind("c.ogg", (*VORBIS, *AT_8), (*VORBIS, *AT_32)), (0, 6.05)),
    Case("aac, two of different rates joined", behind("c.aac", AT_16, STEREO_44), (0.06, 6.16)),
    Case("mp3, two of different rates joined", behind("c.mp3", AT_16, STEREO_44), (0, 6.15)),
    Case("ac3, two of different rates joined", behind("c.ac3", STEREO_44, AT_32), (0, 6.1)),
    Case("opus, a second to skip", built("s.opus", lambda f: handmade.opus_skipping(f, 48_000))),
    Case("m4a, trimmed by its edit list", lambda f: trimmed(f, "t.m4a")),
    Case("mov, trimmed by its edit list", lambda f: trimmed(f, "t.mov")),
    Case("m4a, late by its edit list", lambda f: with_empty_edit(f, "l.m4a", 2, *AAC), LATE),
    Case("mov, late by its edit list", lambda f: with_empty_edit(f, "l.mov", 0.5, "-c:a", "pcm_s16le"), (0.5,)),
    Case("m4a, late, index first", lambda f: with_empty_edit(f, "l.m4a", 4, *AAC, "-movflags", "+faststart"), (4.0,)),
    Case("m4a, edit of an hour", built("e.m4a", edit_of_an_hour)),
    Case("m4a, box without size", built("b.m4a", endless_box)),
    Case("mkv, MP3 in Xiph lacing", built("l.mkv", lambda f: laced(f, "mp3", "xiph"))),
    Case("mkv, MP3 in EBML lacing", built("l.mkv", lambda f: laced(f, "mp3", "ebml"))),
    Case("mkv, Opus in EBML lacing", built("l.mkv", lambda f: laced(f, "opus", "ebml"))),
    Case("mkv, PCM in fixed lacing", built("l.mkv", lambda f: laced(f, "pcm", "fixed"))),
]
INFO = riff_chunk(b"LIST", b"INFO" + bytes(10_000))
STEREO = riff_chunk(b"fmt ", struct.pack("<HHLLHH", 1, 2, 16_000, 64_000, 4, 16))
BOTH = riff_chunk(b"data", np.repeat(np.frombuffer(SOUND, "<i2"), 2).tobytes(), size=64_000)
TWO_OF_SIX = riff_chunk(b"data", SOUND, size=64_000)
HEADERS = [
    Case("wav of 64-bit sizes", file("a.wav", handmade.rf64())),
    Case("wav of 64-bit sizes, by broadcasters", file("a.wav", handmade.rf64(b"BW64"))),
    Case("wav, extensible", file("a.wav", wav(EXTENSIBLE, DATA))),
    Case("wav, ten kilobytes before the sound", file("a.wav", wav(FMT, INFO, DATA))),
    Case("wav, odd chunk with padding", file("a.wav", wav(FMT, riff_chunk(b"LIST", b"INFOabc"), DATA))),
    Case("wav, odd chunk without", file("a.wav", wav(FMT, riff_chunk(b"LIST", b"INFOabc", padded=False), DATA))),
    Case("wav, format behind others", file("a.wav", wav(riff_chunk(b"JUNK", bytes(28)), FMT, DATA))),
    Case("wav, size 0", file("a.wav", wav(FMT, riff_chunk(b"data", SOUND, size=0), size=0))),
    Case("wav, size unknown", file("a.wav", wav(FMT, riff_chunk(b"data", SOUND, size=handmade.UNKNOWN)))),
    Case("wav, size 2 GiB", file("a.wav", wav(FMT, riff_chunk(b"data", SOUND, size=0x7FFF_F000)))),
    Case("wav, size with its head", file("a.wav", wav(FMT, riff_chunk(b"data", SOUND, size=len(SOUND) + 36)))),
    Case("wav, stereo, size unknown", file("a.wav", wav(STEREO, BOTH[:4] + b"\xff" * 4 + BOTH[8:]))),
    Case("wav, says 2 s of 6", file("a.wav", wav(FMT, TWO_OF_SIX))),
    Case("wav, stereo, says 1 s of 6", file("a.wav", wav(STEREO, BOTH))),
    Case("wav, two joined", file("a.wav", wav(FMT, DATA) * 2), (0, 6.05)),
    Case("wav, high byte first", file("a.wav", handmade.rifx())),
    Case("wav behind a tag", file("a.wav", id3(2000) + wav(FMT, DATA))),
    Case("au, size unknown", file("a.au", handmade.au())),
    Case("au, size unknown, annotated", file("a.au", handmade.au(annotation=5000))),
    Case("aiff-c, low byte first", file("a.aifc", handmade.aifc())),
    Case("caf, size unknown", built("a.caf", lambda f: handmade.caf(f, -1))),
    Case("flac, length unknown", built("a.flac", lambda f: handmade.flac(f, 0))),
    Case("flac, length too small", built("a.flac", lambda f: handmade.flac(f, 32_000))),
    Case("flac behind a tag", built("a.flac", lambda f: id3(3000) + handmade.flac(f, 96_800))),
    Case("mp3 behind a tag of 300 kB", mp3(id3(300_000))),
    Case("mp3 behind two tags", mp3(id3(3000) + id3(5000))),
    Case("mp3 behind a tag with a footer", mp3(id3(3000, footer=True))),
    Case("mp3 behind an APE tag", mp3(ape(3000))),
    Case("mp3 before an APE tag of 300 kB", mp3(after=ape(300_000))),
    Case("mp3, no frames promised", mp3(frames=0)),
    Case("mp3, billions of frames promised", mp3(frames=handmade.UNKNOWN)),
    Case("mp3, twice its frames promised", mp3(frames=340)),
    Case("mp3, half its frames promised", mp3(frames=80)),
    Case("mp3, no bytes promised", mp3(size=0)),
    Case("mp3 behind zeros", mp3(bytes(5000))),
    Case("adts behind a tag", built("a.aac", lambda f: id3(3000) + content(made(f, "a.aac", "-i", CLIP)))),
    Case("opus with a cover", lambda f: made(f, "c.opus", "-i", CLIP, *OPUS, "-metadata", f"A={'A' * 60_000}")),
]
HOURS = tuple(SECONDS * number for number in range(7))
LACKING = [
    Case("wav of 64-bit sizes, cut", file("a.wav", handmade.rf64(), 0.6), (0,), 2.42, CUT),
    Case("wav, ten kilobytes before the sound, cut", file("a.wav", wav(FMT, INFO, DATA), 0.6), (0,), 2.6, CUT),
    Case("wav, extensible, cut", file("a.wav", wav(EXTENSIBLE, DATA), 0.6), (0,), 2.42, CUT),
    Case("aiff-c, cut", file("a.aifc", handmade.aifc(), 0.6), (0,), 2.42, CUT),
    Case("mp3 behind a tag of 300 kB, cut", mp3(id3(300_000), share=0.6), (0,), 2.5, CUT),
    Case("mp3 behind two tags, cut", mp3(id3(3000) + id3(5000), share=0.6), (0,), 2.5, CUT),
    Case("mp3 behind a tag with a footer, cut", mp3(id3(3000, footer=True), share=0.6), (0,), 2.5, CUT),
    Case("mp3 behind an APE tag, cut", mp3(ape(3000), share=0.6), (0,), 2.5, CUT),
    Case("opus, cut", lambda f: cut(f, "a.opus", *OPUS), (0,), None, "its end is missing"),
    Case("vorbis, cut", lambda f: cut(f, "a.ogg", *VORBIS), (0,), None, "its end is missing"),
    Case("opus, the last page lost", built("a.opus", without_end), (0,), None, "its end is missing"),
    Case("flac, hours promised", built("a.flac", lambda f: handmade.flac(f, 18_000 * 16_000)), (0,), 17_993.95, CUT),
    Case("mka, hours promised", built("a.mka", promising_hours), HOURS, 17_957.65, CUT),
    Case("sox, cut", lambda f: cut(f, "a.sox"), (0,), 2.42, CUT),
    Case("gsm, cut", lambda f: cut(f, "a.gsm", "-c:a", "libgsm", *AT_8), (0,), None, CUT),
    Case("nut, cut", lambda f: cut(f, "a.nut"), (0,), None, CUT),
    Case("webm of a live recorder, cut", lambda f: cut(f, "a.webm", *OPUS, "-live", "1"), (0,), None, CUT),
]
TOGETHER = (
    "wv wv", "rm rm", "m4a m4a", "mov mov", "caf caf", "aiff aiff", "w64 w64", "tta tta", "wma wma", "voc voc",
    "mp3 wav", "mp3 flac", "wav mp3", "wav m4a", "ogg mp3", "ogg opus", "opus webm", "flac ogg", "m4a mp3",
    "m4a wav", "aac m4a", "webm ogg", "mka webm", "wv flac", "au wv", "ac3 wav", "caf aac", "ts ogg",
    "opus ts", "mp3 wav mp3", "ogg wav ogg", "flac wav flac", "m4a mp3 m4a",
)  # fmt: skip
UNTRAILED = ("-movflags", "frag_keyframe+empty_moov+default_base_moof+skip_trailer", "-frag_duration", "900000")
FLAC_IN_OGG = ("ogg", "-c:a", "flac")
JOINED = [
    *(joined(*forms.split()) for forms in TOGETHER),
    joined("mp3", "aac", starts=(0, 6.15)),
    Case("nut, then an mp3", behind("j.bin", ("nut", *FORMS["nut"]), ("mp3",)), (0,), None, "may be missing"),
    joined("aac", "mp3", "aac", starts=(0.06, 6.16, 12.26)),
    joined("avi", "mka", starts=(0.07, 6.16)),
    Case("flac, two of different rates joined", behind("j.flac", (), ("-ar", "48000")), (0, SECONDS)),
    Case("flac, three joined", behind("j.flac", (), (), ()), (0, SECONDS, 2 * SECONDS)),
    Case("flac in ogg, two joined", behind("j.ogg", FLAC_IN_OGG, FLAC_IN_OGG), (0, SECONDS)),
    Case("flac in ogg, other rate", behind("j.ogg", FLAC_IN_OGG, (*FLAC_IN_OGG, "-ar", "48000")), (0, SECONDS)),
    Case("fragmented mp4, two joined", behind("j.mp4", *[("mp4", *AAC, *FRAGMENTED)] * 2), (0.06, 6.21)),
    Case("mp4 of a browser, two joined", behind("j.mp4", *[("mp4", *AAC, *UNTRAILED)] * 2), (0.06, 6.21)),
    Case("m4a, two that begin late joined", two_late, (2.0, 4.0 + SECONDS)),
    Case("wav, two of different rates joined", behind("a.wav", AT_16, AT_8), (0, SECONDS)),
    Case("wav, m4a and ogg joined", behind("a.wav", (), ("m4a",), ("ogg", *VORBIS)), (0, SECONDS, 12.13)),
    Case("mp3, then half of a flac", behind("a.mp3", (), ("flac",), share=0.5), (0, SECONDS), None, ""),
    Case(
        "mp3, then half of an m4a", behind("a.mp3", (), ("m4a",), share=0.5), (0,), None, "not heard: the file is cut"
    ),
]
LEVELS = [
    Case("six channels, one speaks", lambda f: waved(f, "a.wav", channels(0, 0, 1, 0, 0, 0))),
    Case("m4a, the centre speaks", lambda f: in_the_centre(f, "m4a", *AAC)),
    Case("ac3, the centre speaks", lambda f: in_the_centre(f, "ac3")),
    Case("opus, the centre speaks", lambda f: in_the_centre(f, "opus", *OPUS, "-mapping_family", "1")),
    Case("inverted and late", lambda f: waved(f, "a.wav", lambda c: np.stack([c, -np.roll(c, 3)], 1))),
    Case("inverted at -45 dB", lambda f: waved(f, "a.wav", lambda c: channels(1, -1)(loud(-45)(c)))),
    Case("a beep, then far", lambda f: waved(f, "a.wav", beep_and_far), (1.5,)),
    Case("near, far, near", lambda f: waved(f, "a.wav", near_far_near), (0, 6.05, 12.1)),
    Case("-60 dB in 24 bits", lambda f: waved(f, "a.wav", loud(-60), "PCM_24")),
    Case("-50 dB in opus", lambda f: coded(waved(f, "a.wav", loud(-50)), "opus")),
    Case("-50 dB in m4a", lambda f: coded(waved(f, "a.wav", loud(-50)), "m4a")),
]
DC, FAINT = "aeval=0.2:c=same", "aeval=0.0001*(random(0)-0.5):c=same"
HUM, CLICK = "aeval=0.3*sin(2*PI*50*t):c=same", "aeval=if(between(t\\,3\\,3.001)\\,0.9\\,0):c=same"
TRACKS = [
    Case("mka, first has an offset", lambda f: tracks(f, "a.mka", DC, SAME), (0,), 0, SECOND),
    Case("m4a, first is faint noise", lambda f: tracks(f, "a.m4a", FAINT, SAME), (0,), 0, SECOND),
    Case("mka, first hums", lambda f: tracks(f, "a.mka", HUM, SAME), (0,), 0, SECOND),
    Case("mka, first clicks", lambda f: tracks(f, "a.mka", CLICK, SAME), (0,), 0, SECOND),
    Case("mka, first is short", lambda f: tracks(f, "a.mka", "volume=0,atrim=end=1", SAME), (0,), 0, SECOND),
    Case("m4a, second is late", lambda f: tracks(f, "a.m4a", "volume=0", "adelay=2000"), (2.0,), 0, SECOND),
]
