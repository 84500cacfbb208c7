"""Padding and the frame inside a chunk (docs/format.md, Padding and frame)."""

import zstandard

from primitives import Little, Reader, Refused, require, u32

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


def _zstd_length(data: bytes, expected_len: int) -> int:
    """How long the one frame is with which `data` begins (RFC 8878, section 3.1.1), after a look at its header."""
    r = Little(data, "zstd_damaged")
    require(r.take(4) == b"\x28\xb5\x2f\xfd", "zstd_is_no_frame")
    descriptor = r.uint(1)
    single_segment = bool(descriptor & 0x20)
    require(descriptor & 0x08 == 0, "zstd_reserved_bit")
    window = r.uint(1) if not single_segment else 0
    require(r.uint((0, 1, 2, 4)[descriptor & 3]) == 0, "zstd_with_dictionary")
    size_bytes = (int(single_segment), 2, 4, 8)[descriptor >> 6]
    declared = r.uint(size_bytes) + (256 if size_bytes == 2 else 0)
    if not single_segment:
        base = 1 << 10 + (window >> 3)
        require(base + base // 8 * (window & 7) <= LARGEST_CLEAR, "zstd_window_too_large")
    require(size_bytes == 0 or declared == expected_len, "content_length_differs")
    last = 0
    while not last:
        block = r.uint(3)
        last, kind, size = block & 1, block >> 1 & 3, block >> 3
        require(kind != 3, "zstd_damaged")
        r.take(1 if kind == 1 else size)
    r.take(4 if descriptor & 4 else 0)
    return len(data) - r.left


def _decompress(data: bytes, expected_len: int) -> bytes:
    """Never holds more than one byte above what was promised."""
    require(expected_len <= LARGEST_CLEAR, "content_length_differs")
    require(_zstd_length(data, expected_len) == len(data), "zstd_trailing")
    try:
        with zstandard.ZstdDecompressor(max_window_size=LARGEST_CLEAR).stream_reader(data) as stream:
            return stream.read(expected_len + 1)
    except zstandard.ZstdError:
        raise Refused("zstd_damaged") from None
