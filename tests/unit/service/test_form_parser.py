"""The form's decoder finds boundaries faster than werkzeug's, and finds the same."""

import random

from transcribe.api.form_parser import Decoder
from werkzeug.sansio.multipart import Epilogue, MultipartDecoder, NeedData

HEAD = b'Content-Disposition: form-data; name="a"\r\n\r\n'
BITS = (b"--BOUND", b"\r\n", b"\n", b"\r", b"--", b" ", b"xxxxx", b"--BOUN", b"--BOUND--", b"\r\n--BOUND\r\n", HEAD)


def told(decoder: MultipartDecoder, body: bytes, size: int) -> list[str]:
    """What the decoder makes of a body that comes in pieces of this size."""
    found: list[str] = []
    try:
        for at in range(0, len(body), size):
            decoder.receive_data(body[at : at + size])
            while not isinstance(event := decoder.next_event(), NeedData | Epilogue):
                found.append(repr(event))
            if isinstance(event, Epilogue):
                break
    except ValueError as error:
        found.append(repr(error))
    return found


def test_bodies_full_of_what_is_nearly_a_boundary_are_read_as_by_werkzeug() -> None:
    chance = random.Random(1)
    for _ in range(2000):
        middle = b"".join(chance.choice(BITS) for _ in range(chance.randrange(12)))
        body, size = b"--BOUND\r\n" + HEAD + middle + b"\r\n--BOUND--\r\n", chance.randrange(1, 80)
        mine, theirs = Decoder(b"BOUND", 10**6, max_parts=99), MultipartDecoder(b"BOUND", 10**6, max_parts=99)
        assert told(mine, body, size) == told(theirs, body, size), body
