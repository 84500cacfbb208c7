"""The tag-length-value coding inside an op (docs/format.md, TLV)."""

from primitives import Reader, require, u32


def encode(fields: list[tuple[int, bytes]]) -> bytes:
    """Writes the fields in the order given, so that the vectors can also be written wrong."""
    return b"".join(bytes([tag]) + u32(len(value)) + value for tag, value in fields)


def decode(data: bytes, known: set[int]) -> dict[int, bytes]:
    """Known tags and their values. From 128 on an unknown tag is skipped, below it is refused."""
    r = Reader(data, "tlv_truncated")
    fields: dict[int, bytes] = {}
    before = -1
    while r.left:
        tag = r.uint(1)
        require(tag != before, "tlv_repeated_tag")
        require(tag > before, "tlv_tags_descending")
        before = tag
        value = r.take(r.uint(4))
        if tag in known:
            fields[tag] = value
        else:
            require(tag >= 128, "tlv_unknown_tag_below_128")
    return fields
