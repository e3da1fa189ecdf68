"""What schemathesis sends where the document says only "CSV" or "binary"; schemathesis loads it, not pytest.

EXAMPLE_ARROW names a file with a good Arrow stream.
"""

import os
import struct
from pathlib import Path

import schemathesis
from hypothesis import strategies as st

GOOD = Path(os.environ["EXAMPLE_ARROW"]).read_bytes()


@st.composite
def damaged(draw):
    """A good stream with a few other bytes, perhaps cut off."""
    data = bytearray(GOOD)
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


def table(header, *cells):
    lines = st.lists(st.tuples(*cells).map(",".join), max_size=4)
    return lines.map(lambda rows: "\n".join([header, *rows]).encode("utf-8", "surrogatepass"))


number = st.floats(0, 25).map(str) | st.sampled_from(["", "nan", "1e400", "inf", "x", "-1", "26"])
text = st.text(max_size=5)
rows = table("Pressure [bar],Temperature,Pump type", number, number, number | text)
identity = st.sampled_from(["bergen/1", "bergen/99999999", "x/1", ""])
said = table("id,correct,note", identity, st.sampled_from(["true", "no", "?"]), text)

schemathesis.openapi.media_type("text/csv", rows | said | st.binary(max_size=60))
schemathesis.openapi.media_type(
    "application/vnd.apache.arrow.stream", st.just(GOOD) | damaged() | st.binary(max_size=60)
)
schemathesis.openapi.media_type("application/octet-stream", st.binary(max_size=200))


BOUNDS = {0.0, 25.0, -40.0, 150.0}


@schemathesis.hook
def filter_body(context, body):
    """Leave out numbers that only float32 rounds onto a bound: beyond it as text, not for the service."""
    return not any(number not in BOUNDS and rounded(number) in BOUNDS for number in numbers(body))


def numbers(value):
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from numbers(each)


def rounded(number):
    return struct.unpack("f", struct.pack("f", number))[0] if abs(number) < 1e38 else number
