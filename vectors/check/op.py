"""Ops: their heads, what is sealed in them, and what makes one unreadable (docs/format.md, Op and TLV of each kind)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import manifest
import tlv
from primitives import Reader, Refused, require, sha256, u32

GENESIS, PUT, TRASH, PURGE, MACHINE_ADD, MACHINE_REVOKE, CHECKPOINT, KEYSLOT, EPOCH, SNAPSHOT = range(10)
KINDS = {"GENESIS": 0, "PUT": 1, "TRASH": 2, "PURGE": 3, "MACHINE_ADD": 4, "MACHINE_REVOKE": 5, "KEYSLOT": 7}
SEALED_KINDS = {GENESIS, PUT, MACHINE_ADD, KEYSLOT}
FILE, DIRECTORY, SYMLINK = 1, 2, 3
NODE_KINDS = {"file": FILE, "directory": DIRECTORY, "symlink": SYMLINK}
MOST_INLINE = 2048
INLINE_BODY = 3072
HEAD_LEN = 32
ROOT = bytes(16)

Value = int | bytes


@dataclass(frozen=True)
class Field:
    """How one tag's value is written and read."""

    name: str
    encode: Callable[[Value], bytes]
    decode: Callable[[bytes], Value]


def _raw(name: str, fixed: int | None = None, least: int = 0, most: int = 65_536) -> Field:
    def decode(value: bytes) -> bytes:
        require(len(value) == fixed if fixed is not None else least <= len(value) <= most, f"{name}_length")
        return value

    return Field(name, lambda value: value, decode)


def _uint(name: str, size: int, signed: bool = False) -> Field:
    def decode(value: bytes) -> int:
        require(len(value) == size, f"{name}_length")
        return int.from_bytes(value, "big", signed=signed)

    return Field(name, lambda value: value.to_bytes(size, "big", signed=signed), decode)


FIELDS: dict[int, dict[int, Field]] = {
    GENESIS: {
        1: _uint("min_version", 1),
        2: _uint("cdc", 1),
        3: _uint("codecs", 1),
        4: _uint("dedup", 1),
        5: _uint("padding", 1),
        6: _uint("enrol_policy", 1),
        7: _uint("retention_hint_days", 4),
    },
    PUT: {
        1: _raw("parent", 16),
        2: _raw("name"),
        3: _uint("kind", 1),
        4: _uint("size", 8),
        5: _uint("mtime_ns", 8, signed=True),
        6: _uint("mode", 1),
        7: _raw("content_hash", 32),
        8: _raw("scope", 16),
        9: _uint("class", 1),
        10: _raw("manifest"),
        11: _raw("inline", most=MOST_INLINE),
        12: _raw("symlink_target", least=1, most=4096),
        13: _raw("based_on", 32),
        14: _raw("conflict_of", 48),
    },
    MACHINE_ADD: {
        1: _raw("public_key", 32),
        2: _raw("name", least=1, most=255),
        3: _raw("platform", least=1, most=255),
        4: _uint("kind", 1),
    },
    KEYSLOT: {1: _raw("slot_hash", 32), 2: _raw("slot_id", 16), 3: _uint("type", 1)},
}
PUT_MANDATORY = {FILE: {1, 2, 3, 4, 5, 6, 7, 9}, DIRECTORY: {1, 2, 3, 5, 6}, SYMLINK: {1, 2, 3, 5, 12}}
PUT_OPTIONAL = {FILE: {8, 10, 11, 13, 14}, DIRECTORY: {13, 14}, SYMLINK: {13, 14}}


def encode(kind: int, fields: dict[str, Value]) -> bytes:
    """The TLV of named fields, in ascending order of their tags."""
    by_name = {field.name: (tag, field) for tag, field in FIELDS[kind].items()}
    pairs = [(by_name[name][0], by_name[name][1].encode(value)) for name, value in fields.items()]
    return tlv.encode(sorted(pairs))


def _decode(kind: int, data: bytes) -> dict[int, Value]:
    return {tag: FIELDS[kind][tag].decode(value) for tag, value in tlv.decode(data, set(FIELDS[kind])).items()}


def _require_all(fields: dict[int, Value], tags: set[int]) -> None:
    require(tags <= fields.keys(), "mandatory_tag_missing")


def _require_utf8(value: bytes, rule: str) -> None:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(rule) from None


def parse_genesis(data: bytes) -> dict[int, Value]:
    f = _decode(GENESIS, data)
    _require_all(f, {1, 2, 3, 4, 5, 6, 7})
    require(f[1] == 1, "genesis_min_version")
    require(f[2] == 2, "genesis_unknown_cdc")
    require(f[3] <= 1, "genesis_unknown_codec")
    require(f[4] <= 1, "genesis_unknown_dedup")
    require(f[5] == 1, "genesis_unknown_padding")
    require(f[6] == 0, "genesis_unknown_enrol_policy")
    return f


def parse_machine_add(data: bytes) -> dict[int, Value]:
    f = _decode(MACHINE_ADD, data)
    _require_all(f, {1, 2, 3, 4})
    _require_utf8(f[2], "name_not_utf8")
    _require_utf8(f[3], "platform_not_utf8")
    require(f[4] in (1, 2), "unknown_machine_kind")
    return f


def parse_keyslot(data: bytes) -> dict[int, Value]:
    f = _decode(KEYSLOT, data)
    _require_all(f, {1, 2, 3})
    require(f[3] in (1, 2), "unknown_slot_type")
    return f


def parse_put(data: bytes, node_id: bytes, dedup: int, refs: list[bytes]) -> dict[int, Value]:
    """The state of a node. `dedup` is the genesis's; `refs` are what stands in the op in clear."""
    f = _decode(PUT, data)
    _require_all(f, {3})
    kind = f[3]
    require(kind in PUT_MANDATORY, "unknown_node_kind")
    _require_all(f, PUT_MANDATORY[kind])
    require(f.keys() <= PUT_MANDATORY[kind] | PUT_OPTIONAL[kind], "tag_not_of_node_kind")
    expected_refs: list[bytes] = []
    if kind == FILE:
        require(f[6] <= 1, "unknown_mode_bit")
        require(f[9] <= 5, "unknown_class")
        _check_scope(f.get(8), node_id, dedup)
        require((10 in f) != (11 in f), "both_or_neither_of_10_and_11")
        if 11 in f:
            require(len(f[11]) == f[4], "size_differs")
        else:
            decoded = manifest.decode(f[10])
            require(sum(e.len for e in decoded.entries) == f[4], "size_differs")
            expected_refs = distinct(e.chunk_id for e in decoded.entries)
    elif kind == DIRECTORY:
        require(f[6] == 0, "unknown_mode_bit")
    else:
        _require_utf8(f[12], "symlink_target_not_utf8")
        require(b"\0" not in f[12], "symlink_target_nul")
    require(refs == expected_refs, "refs_differ_from_manifest")
    return f


def _check_scope(scope: bytes | None, node_id: bytes, dedup: int) -> None:
    if dedup == 1:
        require(scope == bytes(16), "scope_not_the_vaults")
    elif scope is not None:
        require(scope != node_id, "scope_is_own_node_id")
        require(scope != bytes(16), "scope_zero_without_dedup")


def distinct(ids: Iterable[bytes]) -> list[bytes]:
    """In order of first appearance."""
    return list(dict.fromkeys(ids))


def put_refs(data: bytes) -> list[bytes]:
    """The refs a writer puts beside a PUT's TLV."""
    f = _decode(PUT, data)
    return distinct(e.chunk_id for e in manifest.decode(f[10]).entries) if 10 in f else []


def body_len(kind: int, data: bytes, inline: bool) -> int:
    """How long `u32 len ‖ TLV ‖ zeros` has to be."""
    length = 4 + len(data)
    if kind == PUT and inline:
        return INLINE_BODY
    return -(-length // 256) * 256 if length <= 1024 else -(-length // 1024) * 1024


def has_inline(kind: int, data: bytes) -> bool:
    return kind == PUT and 11 in _decode(PUT, data)


def body(kind: int, data: bytes) -> bytes:
    """The plaintext of an op."""
    length = body_len(kind, data, has_inline(kind, data))
    require(4 + len(data) <= length, "inline_does_not_fit")
    return (u32(len(data)) + data).ljust(length, b"\0")


def parse_body(kind: int, node_id: bytes, dedup: int, refs: list[bytes], plain: bytes) -> dict[int, Value]:
    """The fields by tag, if not one byte of the plaintext is other than it has to be."""
    r = Reader(plain, "body_truncated")
    data = r.take(r.uint(4))
    match kind:
        case 0:
            fields = parse_genesis(data)
        case 1:
            fields = parse_put(data, node_id, dedup, refs)
        case 4:
            fields = parse_machine_add(data)
        case 7:
            fields = parse_keyslot(data)
        case _:
            raise Refused("kind_has_no_body")
    require(len(plain) == body_len(kind, data, kind == PUT and 11 in fields), "padding_wrong_length")
    require(r.take(r.left).strip(b"\0") == b"", "padding_not_zero")
    return fields


def head(kind: int, node_id: bytes, n_refs: int, ct_len: int) -> bytes:
    return bytes([kind, 0, 0, 0]) + node_id + u32(n_refs) + u32(ct_len) + bytes(4)


def op_hash(head_: bytes, refs_hash: bytes, ct_hash: bytes) -> bytes:
    return sha256(b"\x02" + head_ + refs_hash + ct_hash)
