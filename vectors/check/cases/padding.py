"""padding.json: P(L) of chunk frames and the lengths of op bodies."""

import frame
import op
from cases.fixture import Json, same, vectors

STATED = {10_000: 10_240, 1_048_584: 1_081_344, 8_388_616: 8_650_752}
LENGTHS = [
    8,
    9,
    4095,
    4096,
    4097,
    4224,
    4225,
    8191,
    8192,
    8193,
    10_000,
    10_240,
    65_535,
    65_536,
    65_537,
    131_072 + 8,
    262_144 + 8,
    1_000_000,
    1_048_575,
    1_048_576,
    1_048_577,
    1_048_584,
    4_194_312,
    8_388_607,
    8_388_608,
    8_388_616,
]
TLV_LENGTHS = [0, 1, 252, 253, 508, 509, 764, 765, 1020, 1021, 2044, 2045, 3068, 3069, 9345, 60_000]


def build() -> Json:
    for length, padded in STATED.items():
        same(f"P({length})", frame.padded(length), padded)
    for length in LENGTHS:
        same("padding twice", frame.padded(frame.padded(length)), frame.padded(length))
    frames = [{"name": f"frame_{n}", "length": n, "padded": frame.padded(n)} for n in LENGTHS]
    bodies = [
        {"name": f"body_{n}", "tlv_length": n, "body_length": op.body_len(op.PUT, bytes(n), False)} for n in TLV_LENGTHS
    ]
    return vectors(
        "Cases with length give P(length); cases with tlv_length the length of u32 len + TLV + zeros of an "
        "op without inline content.",
        [*frames, *bodies],
    )
