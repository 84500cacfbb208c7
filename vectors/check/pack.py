"""The framing of many chunks in one upload, `SAPK` (docs/format.md, Pack)."""

import frame
from primitives import Reader, require, u32

LARGEST_BLOB = 12 + frame.LARGEST_FRAME + 16


def write(blobs: list[bytes]) -> bytes:
    return b"SAPK" + bytes([1, 0, 0, 0]) + b"".join(u32(len(b)) + b for b in blobs)


def read(body: bytes) -> list[bytes]:
    r = Reader(body)
    require(r.take(4) == b"SAPK", "bad_magic")
    require(r.uint(1) == 1, "unknown_version")
    require(r.take(3) == bytes(3), "nonzero_reserved")
    require(r.left > 0, "empty")
    blobs = []
    while r.left:
        length = r.uint(4)
        require(0 < length <= LARGEST_BLOB, "blob_length_out_of_range")
        blobs.append(r.take(length))
    return blobs
