"""The chunks of a file, grouped so that one op can name them all (docs/format.md, Manifest)."""

from dataclasses import dataclass

import chunk
from chunk import Entry, Sealed
from keys import VaultKeys
from primitives import require, u64

MOST_IN_OP = 128
MOST_IN_GROUP = 512
MOST_LEVELS = 3


@dataclass(frozen=True)
class Manifest:
    """`level` list levels stand between `entries` and the data chunks; 0: the entries are the data chunks."""

    level: int
    entries: list[Entry]


def encode(manifest: Manifest) -> bytes:
    return bytes([manifest.level]) + b"".join(e.chunk_id + e.ck + u64(e.len) for e in manifest.entries)


def decode(data: bytes) -> Manifest:
    require(len(data) >= 1 + 72 and (len(data) - 1) % 72 == 0, "manifest_length")
    level, body = data[0], data[1:]
    require(level <= MOST_LEVELS, "manifest_level")
    entries = [
        Entry(body[at : at + 32], body[at + 32 : at + 64], int.from_bytes(body[at + 64 : at + 72], "big"))
        for at in range(0, len(body), 72)
    ]
    require(len(entries) <= MOST_IN_OP, "manifest_too_many_entries")
    for e in entries:
        require(e.len > 0, "manifest_empty_entry")
        require(level > 0 or e.len <= 8 * 1024 * 1024, "manifest_entry_too_long")
    return Manifest(level, entries)


def group(entries: list[Entry]) -> list[list[Entry]]:
    """Cuts one level into groups, by content and, where content fails, by count."""
    groups: list[list[Entry]] = [[]]
    for e in entries:
        if groups[-1] and (groups[-1][-1].chunk_id[-1] & 0x7F == 0 or len(groups[-1]) == MOST_IN_GROUP):
            groups.append([])
        groups[-1].append(e)
    if 16 * len(groups) > len(entries):
        groups = [entries[at : at + MOST_IN_GROUP] for at in range(0, len(entries), MOST_IN_GROUP)]
    return groups


def build(
    keys: VaultKeys, scope: bytes, entries: list[Entry]
) -> tuple[Manifest, list[list[tuple[list[Entry], Sealed]]]]:
    """The manifest of a file's data chunks, and each level's (children, list chunk), lowest first."""
    levels: list[list[tuple[list[Entry], Sealed]]] = []
    while len(entries) > MOST_IN_OP:
        require(len(levels) < MOST_LEVELS, "file_too_long")
        lists = [(g, chunk.seal_list(keys, scope, g)) for g in group(entries)]
        levels.append(lists)
        entries = [Entry(s.chunk_id, s.ck, sum(e.len for e in g)) for g, s in lists]
    return Manifest(len(levels), entries), levels
