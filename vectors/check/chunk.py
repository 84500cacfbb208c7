"""Sealed chunks `SACK`, data and list (docs/format.md, Chunk)."""

from dataclasses import dataclass

from blake3 import blake3

import frame
from keys import VaultKeys
from primitives import Reader, gcm_open, gcm_seal, require, sha256, u32, u64

DATA, LIST = 0, 1
HEADER_LEN, TAG_LEN = 12, 16
VAULT_SCOPE = bytes(16)
MOST_CHILDREN = 512


@dataclass(frozen=True)
class Entry:
    """One line of a manifest: a chunk, its key, and how much of the file's content lies below it."""

    chunk_id: bytes
    ck: bytes
    len: int


@dataclass(frozen=True)
class Sealed:
    ck: bytes
    chunk_id: bytes
    blob: bytes


def header(kind: int, epoch: int) -> bytes:
    return b"SACK" + bytes([1, 1, kind, 0]) + u32(epoch)


def chunk_key(keys: VaultKeys, kind: int, scope: bytes, clear: bytes, framed: bytes) -> bytes:
    message = b"\x01" + bytes([kind]) + scope + u32(len(clear)) + clear + framed
    return blake3(message, key=keys.chunk).digest()


def seal_with(ck: bytes, head: bytes, vid: bytes, scope: bytes, clear: bytes, framed: bytes) -> Sealed:
    """Every input explicit, so that the vectors can also be built wrong."""
    blob = head + clear + gcm_seal(ck, bytes(12), framed, head + vid + scope + clear)
    return Sealed(ck, sha256(blob), blob)


def _seal(keys: VaultKeys, kind: int, scope: bytes, clear: bytes, framed: bytes) -> Sealed:
    ck = chunk_key(keys, kind, scope, clear, framed)
    return seal_with(ck, header(kind, keys.epoch), keys.vid, scope, clear, framed)


def seal_data(keys: VaultKeys, scope: bytes, content: bytes) -> Sealed:
    return seal_framed(keys, scope, frame.write(content))


def seal_framed(keys: VaultKeys, scope: bytes, framed: bytes) -> Sealed:
    return _seal(keys, DATA, scope, b"", framed)


def list_parts(entries: list[Entry]) -> tuple[bytes, bytes]:
    """(clear, frame) of a list chunk."""
    clear = u32(len(entries)) + b"".join(e.chunk_id for e in entries)
    return clear, frame.write(b"".join(e.ck + u64(e.len) for e in entries))


def seal_list(keys: VaultKeys, scope: bytes, entries: list[Entry]) -> Sealed:
    return _seal(keys, LIST, scope, *list_parts(entries))


def children(blob: bytes) -> tuple[int, list[bytes]]:
    """(kind, chunk ids in clear): all that can be checked and read without a key."""
    r = Reader(blob)
    require(r.take(4) == b"SACK", "bad_magic")
    require(r.uint(1) == 1, "unknown_version")
    require(r.uint(1) == 1, "unknown_alg")
    kind = r.uint(1)
    require(kind in (DATA, LIST), "unknown_kind")
    require(r.uint(1) == 0, "nonzero_reserved")
    require(r.uint(4) == 1, "wrong_epoch")
    ids: list[bytes] = []
    if kind == LIST:
        n = r.uint(4)
        require(1 <= n <= MOST_CHILDREN, "list_count_out_of_range")
        ids = [r.take(32) for _ in range(n)]
    framed = r.left - TAG_LEN
    require(4096 <= framed <= frame.LARGEST_FRAME and frame.padded(framed) == framed, "length_is_not_padded")
    return kind, ids


def open_chunk(vid: bytes, scope: bytes, entry: Entry, expected_kind: int, blob: bytes) -> bytes | list[Entry]:
    """The content of a data chunk, or the entries of a list chunk, as the manifest's `entry` promises it."""
    require(sha256(blob) == entry.chunk_id, "chunk_id_differs")
    kind, ids = children(blob)
    require(kind == expected_kind, "unexpected_kind")
    clear_end = HEADER_LEN + (4 + 32 * len(ids) if kind == LIST else 0)
    head, clear = blob[:HEADER_LEN], blob[HEADER_LEN:clear_end]
    framed = gcm_open(entry.ck, bytes(12), blob[clear_end:], head + vid + scope + clear, "does_not_open")
    if kind == DATA:
        return frame.read(framed, entry.len)
    require(framed[4] == frame.NONE, "list_with_codec")
    r = Reader(frame.read(framed, 40 * len(ids)))
    entries = [Entry(chunk_id, r.take(32), r.uint(8)) for chunk_id in ids]
    require(all(e.len > 0 for e in entries), "list_empty_entry")
    require(sum(e.len for e in entries) == entry.len, "list_sum_differs")
    return entries
