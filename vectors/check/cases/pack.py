"""pack.json: the framing of uploads."""

import chunk
import pack
from cases.fixture import KEYS, NODE, Json, each_byte_changed, put, refused, same, vectors
from primitives import u32


HEADER = {range(0, 4): "bad_magic", range(4, 5): "unknown_version", range(5, 8): "nonzero_reserved"}


def build() -> Json:
    blobs = [chunk.seal_data(KEYS, NODE, text).blob for text in (b"first", b"second")]
    cases: list[Json] = []
    for name, held in (("one", blobs[:1]), ("two", blobs)):
        raw = pack.write(held)
        same(name, pack.read(raw), held)
        cases.append({"name": name, "blobs": [b.hex() for b in held], "pack": raw.hex()})
    good = pack.write(blobs[:1])

    def wrong(name: str, rule: str, raw: bytes) -> Json:
        return refused(name, rule, "pack", raw, lambda: pack.read(raw))

    return vectors(
        "Packs: many sealed chunks in one body.",
        cases,
        [
            wrong("bad_magic", "bad_magic", put(good, 0, b"SAPX")),
            wrong("version_2", "unknown_version", put(good, 4, b"\x02")),
            wrong("nonzero_reserved", "nonzero_reserved", put(good, 7, b"\x01")),
            *(wrong(name, rule, raw) for name, rule, raw in each_byte_changed(good, HEADER)),
            *(wrong(f"truncated_at_{at}", "truncated", good[:at]) for at in (0, 4, 5, 9, 11, 12, 13)),
            wrong("blob_length_at_its_highest", "blob_length_out_of_range", put(good, 8, u32(2**32 - 1))),
            wrong("blob_length_one_more", "truncated", put(good, 8, u32(len(blobs[0]) + 1))),
            wrong("blob_length_one_less", "truncated", put(good, 8, u32(len(blobs[0]) - 1))),
            wrong("trailing_byte", "truncated", good + b"\0"),
            wrong("second_pack_behind", "blob_length_out_of_range", good + good),
            wrong("empty", "empty", good[:8]),
            wrong("header_truncated", "truncated", good[:7]),
            wrong("length_truncated", "truncated", good + b"\0\0"),
            wrong("blob_truncated", "truncated", good[:-1]),
            wrong("blob_of_length_0", "blob_length_out_of_range", good + bytes(4)),
            wrong("blob_longer_than_any_chunk", "blob_length_out_of_range", good[:8] + u32(pack.LARGEST_BLOB + 1)),
        ],
    )
