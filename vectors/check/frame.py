"""Padding and the frame inside a chunk (docs/format.md, Padding and frame)."""

import zstandard

from primitives import Reader, Refused, require, u32

NONE, ZSTD = 0, 1
LARGEST_CLEAR = 8 * 1024 * 1024


def padme(length: int) -> int:
    """Nikitin et al., PURBs (2019): leaves log log of the length visible and costs at most 12 %."""
    e = length.bit_length() - 1
    s = e.bit_length()
    unit = 1 << max(0, e - s)
    return -(-length // unit) * unit


def padded(length: int) -> int:
    """`P(L)`."""
    return max(4096, padme(length))


LARGEST_FRAME = padded(8 + LARGEST_CLEAR)


def write(data: bytes, codec: int = NONE) -> bytes:
    frame = u32(len(data)) + bytes([codec, 0, 0, 0]) + data
    return frame + bytes(padded(len(frame)) - len(frame))


def read(frame: bytes, expected_len: int) -> bytes:
    """The content, which must be `expected_len` bytes. For a list chunk that is 40 bytes for each child."""
    r = Reader(frame, "frame_truncated")
    stored_len, codec = r.uint(4), r.uint(1)
    require(codec in (NONE, ZSTD), "unknown_codec")
    require(r.take(3) == bytes(3), "frame_nonzero_reserved")
    data = r.take(stored_len)
    require(len(frame) == padded(8 + stored_len), "frame_padding_wrong_length")
    require(r.take(r.left).strip(b"\0") == b"", "frame_padding_not_zero")
    if codec == ZSTD:
        data = _decompress(data, expected_len)
    require(len(data) == expected_len, "content_length_differs")
    return data


def _decompress(data: bytes, expected_len: int) -> bytes:
    """Never holds more than one byte above what was promised."""
    require(expected_len <= LARGEST_CLEAR, "content_length_differs")
    try:
        with zstandard.ZstdDecompressor(max_window_size=LARGEST_CLEAR).stream_reader(data) as stream:
            return stream.read(expected_len + 1)
    except zstandard.ZstdError:
        raise Refused("zstd_damaged") from None
