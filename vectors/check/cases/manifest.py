"""manifest.json: how the chunks of a file are grouped."""

import manifest
from cases.fixture import KEYS, NODE, VAULT, Json, same, vectors
from cases.list_chunk import entries
from chunk import Entry
from primitives import sha256


def _case(name: str, listed: list[Entry], source: Json) -> Json:
    built, levels = manifest.build(KEYS, NODE, listed)
    raw = manifest.encode(built)
    same(name, manifest.decode(raw), built)
    for level in levels:
        assert all(len(group) <= manifest.MOST_IN_GROUP for group, _ in level), name
    return {
        "name": name,
        **VAULT,
        "scope": NODE.hex(),
        "data_entries": source,
        "size": sum(e.len for e in listed),
        "level": built.level,
        "levels_lowest_first": [
            {
                "group_sizes": [len(group) for group, _ in level],
                "chunk_ids_sha256": sha256(b"".join(s.chunk_id for _, s in level)).hex(),
            }
            for level in levels
        ],
        "manifest_length": len(raw),
        "manifest_sha256": sha256(raw).hex(),
    } | ({"manifest": raw.hex()} if len(raw) <= 2048 else {})


def _hashed(n: int, seed: bytes = b"entry") -> Json:
    return {"generator": "sha256_entries", "seed": seed.hex(), "count": n}


def _from_hash(name: str, n: int, seed: bytes = b"entry") -> Json:
    return _case(name, entries(n, seed), _hashed(n, seed))


def _repeated(name: str, last_byte: int, n: int) -> Json:
    e = Entry(sha256(b"repeated")[:31] + bytes([last_byte]), sha256(b"ck"), 262_144)
    source: Json = {"generator": "repeat", "chunk_id": e.chunk_id.hex(), "ck": e.ck.hex(), "len": e.len, "count": n}
    return _case(name, [e] * n, source)


def build() -> Json:
    return vectors(
        "Manifests built from the entries of a file's data chunks. data_entries is a generator (README.md); "
        "group_sizes are the "
        "numbers of children of the list chunks of a level, chunk_ids_sha256 the hash of their joined ids.",
        [
            _from_hash("one", 1),
            _from_hash("three", 3),
            _from_hash("all_in_the_op", 128),
            _from_hash("one_too_many", 129),
            _from_hash("one_level", 3000),
            _from_hash("two_levels", 20_000),
            _repeated("equal_chunks_that_never_end_a_group", 0x01, 2000),
            _repeated("equal_chunks_that_always_end_a_group", 0x80, 2000),
        ],
    )
