"""pack.json: the framing of uploads."""

import chunk
import pack
from cases.fixture import KEYS, NODE, Json, put, refused, same, vectors
from primitives import u32


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
            wrong("empty", "empty", good[:8]),
            wrong("header_truncated", "truncated", good[:7]),
            wrong("length_truncated", "truncated", good + b"\0\0"),
            wrong("blob_truncated", "truncated", good[:-1]),
            wrong("blob_of_length_0", "blob_length_out_of_range", good + bytes(4)),
            wrong("blob_longer_than_any_chunk", "blob_length_out_of_range", good[:8] + u32(pack.LARGEST_BLOB + 1)),
        ],
    )
