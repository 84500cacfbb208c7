"""op.json: what stands in ops of each kind, and what makes one unreadable."""

from collections.abc import Sequence

from blake3 import blake3

import chunk
import ed25519
import manifest
import op
import tlv
from cases.fixture import (
    KEYS,
    MACHINE_A,
    NODE,
    OTHER_NODE,
    SEED_A,
    Json,
    flip,
    put,
    refused,
    same,
    vectors,
)
from cases.list_chunk import entries
from cases.slot import password_slot, recovery_slot
from chunk import Entry
from commit import PlainOp
from op import Value
from primitives import sha256, u32

MTIME = 1_700_000_000_123_456_789
INLINE = b"# Plan\n\nBuy bread.\n"
Fields = dict[str, Value]

GENESIS: Fields = {
    "min_version": 1,
    "cdc": 2,
    "codecs": 1,
    "dedup": 0,
    "padding": 1,
    "enrol_policy": 0,
    "retention_hint_days": 30,
}


def machine_add(seed: bytes, name: str, kind: int = 1) -> Fields:
    return {"public_key": ed25519.public_key(seed), "name": name.encode(), "platform": b"linux-x86_64", "kind": kind}


def keyslot(raw: bytes) -> Fields:
    return {"slot_hash": sha256(raw), "slot_id": raw[64:80], "type": raw[5]}


def inline_file(content: bytes = INLINE, name: bytes = b"plan.md", parent: bytes = op.ROOT) -> Fields:
    return {
        "parent": parent,
        "name": name,
        "kind": op.FILE,
        "size": len(content),
        "mtime_ns": MTIME,
        "mode": 0,
        "content_hash": blake3(content).digest(),
        "class": 0,
        "inline": content,
    }


def chunked_file(built: manifest.Manifest, name: bytes = b"photo.jpg") -> Fields:
    """The content hash is made up: nobody can check it without the chunks."""
    return {
        "parent": OTHER_NODE,
        "name": name,
        "kind": op.FILE,
        "size": sum(e.len for e in built.entries),
        "mtime_ns": MTIME,
        "mode": 1,
        "content_hash": sha256(b"content"),
        "class": 0,
        "manifest": manifest.encode(built),
    }


DIRECTORY: Fields = {
    "parent": op.ROOT,
    "name": "Gr\u00fc\u00dfe".encode(),
    "kind": op.DIRECTORY,
    "mtime_ns": -1,
    "mode": 0,
}
SYMLINK: Fields = {
    "parent": op.ROOT,
    "name": b"latest",
    "kind": op.SYMLINK,
    "mtime_ns": MTIME,
    "symlink_target": b"../photos/2026",
}


def chunked(n: int) -> Fields:
    return chunked_file(manifest.Manifest(0, entries(n)))


def to_json(kind: int, fields: Fields) -> Json:
    """Byte strings as hex; 64-bit times as decimal strings, which JavaScript would round as numbers."""
    out: Json = {}
    for field in op.FIELDS[kind].values():
        if field.name in fields:
            value = fields[field.name]
            out[field.name] = (
                value.hex() if isinstance(value, bytes) else str(value) if field.name == "mtime_ns" else value
            )
    return out


def _case(name: str, kind: int, node_id: bytes, fields: Fields, dedup: int = 0, skipped: bytes = b"") -> Json:
    plain = PlainOp(kind, node_id, op.encode(kind, fields) + skipped)
    parsed = op.parse_body(kind, node_id, dedup, plain.refs, plain.body)
    same(name, {op.FIELDS[kind][tag].name: value for tag, value in parsed.items()}, fields)
    return {
        "name": name,
        "kind": kind,
        "node_id": node_id.hex(),
        "dedup": dedup,
        "fields": to_json(kind, fields),
        "encode": not skipped,
        "tlv": plain.tlv.hex(),
        "refs": [r.hex() for r in plain.refs],
        "head": plain.head.hex(),
        "body": plain.body.hex(),
    }


def _without_body(name: str, kind: int, node_id: bytes) -> Json:
    plain = PlainOp(kind, node_id)
    return {
        "name": name,
        "kind": kind,
        "node_id": node_id.hex(),
        "dedup": 0,
        "fields": {},
        "encode": True,
        "tlv": "",
        "refs": [],
        "head": plain.head.hex(),
        "body": "",
        "op_hash": op.op_hash(plain.head, sha256(b""), sha256(b"")).hex(),
    }


def _cases() -> list[Json]:
    built, _ = manifest.build(KEYS, NODE, entries(3000))
    twice = manifest.Manifest(0, entries(2) + entries(1))
    return [
        _case("genesis", op.GENESIS, op.ROOT, GENESIS),
        _case("genesis_dedup_vault_no_codec", op.GENESIS, op.ROOT, GENESIS | {"codecs": 0, "dedup": 1}),
        _case("file_inline", op.PUT, NODE, inline_file()),
        _case("file_empty", op.PUT, NODE, inline_file(b"")),
        _case("file_inline_largest", op.PUT, NODE, inline_file(bytes(2048))),
        _case("file_one_chunk", op.PUT, NODE, chunked(1)),
        _case("file_128_chunks", op.PUT, NODE, chunked(128)),
        _case("file_with_list_chunks", op.PUT, NODE, chunked_file(built)),
        _case("file_with_the_same_chunk_twice", op.PUT, NODE, chunked_file(twice)),
        _case(
            "file_conflict_copy",
            op.PUT,
            NODE,
            inline_file()
            | {
                "scope": OTHER_NODE,
                "based_on": sha256(b"ancestor"),
                "conflict_of": OTHER_NODE + sha256(b"winner"),
            },
        ),
        _case("file_dedup_vault", op.PUT, NODE, chunked(1) | {"scope": chunk.VAULT_SCOPE}, dedup=1),
        _case("file_inline_dedup_vault", op.PUT, NODE, inline_file() | {"scope": chunk.VAULT_SCOPE}, dedup=1),
        _case("file_of_highest_class", op.PUT, NODE, chunked(1) | {"class": 5}),
        _case("file_longest_name", op.PUT, NODE, inline_file(INLINE, b"n" * 1024)),
        _case("file_invalid_name_is_readable_and_not_placed", op.PUT, NODE, inline_file(INLINE, b"../x")),
        _case(
            "file_unknown_tags_from_128_are_skipped",
            op.PUT,
            NODE,
            inline_file(),
            skipped=tlv.encode([(128, b"a"), (255, b"")]),
        ),
        _case("directory", op.PUT, OTHER_NODE, DIRECTORY),
        _case("directory_based_on", op.PUT, OTHER_NODE, DIRECTORY | {"parent": NODE, "based_on": sha256(b"ancestor")}),
        _case("symlink", op.PUT, NODE, SYMLINK),
        _without_body("trash", op.TRASH, NODE),
        _without_body("purge", op.PURGE, NODE),
        _without_body("machine_revoke", op.MACHINE_REVOKE, MACHINE_A),
        _case("machine_add", op.MACHINE_ADD, MACHINE_A, machine_add(SEED_A, "laptop")),
        _case("machine_add_web", op.MACHINE_ADD, MACHINE_A, machine_add(SEED_A, "K\u00fcche", 2)),
        _case("keyslot_password", op.KEYSLOT, op.ROOT, keyslot(password_slot())),
        _case("keyslot_recovery", op.KEYSLOT, op.ROOT, keyslot(recovery_slot())),
    ]


def _padded(data: bytes, inline: bool, kind: int = op.PUT) -> bytes:
    return (u32(len(data)) + data).ljust(op.body_len(kind, data, inline), b"\0")


def _must_fail() -> list[Json]:
    fails: list[Json] = []

    def body(
        name: str,
        rule: str,
        plain: bytes,
        refs: Sequence[bytes] = (),
        kind: int = op.PUT,
        node: bytes = NODE,
        dedup: int = 0,
    ) -> None:
        fails.append(
            refused(
                name,
                rule,
                "op_body",
                plain,
                lambda: op.parse_body(kind, node, dedup, list(refs), plain),
                kind=kind,
                node_id=node.hex(),
                dedup=dedup,
                refs=[r.hex() for r in refs],
            )
        )

    def pairs(name: str, rule: str, changed: list[tuple[int, bytes]], **kwargs: object) -> None:
        inline = any(tag == 11 for tag, _ in changed)
        body(name, rule, _padded(tlv.encode(changed), inline), **kwargs)

    def fields(name: str, rule: str, changed: Fields, kind: int = op.PUT, **kwargs: object) -> None:
        body(name, rule, _padded(op.encode(kind, changed), "inline" in changed, kind), kind=kind, **kwargs)

    def without(full: Fields, *names: str) -> Fields:
        return {name: value for name, value in full.items() if name not in names}

    good = [(tag, f.encode(inline_file()[f.name])) for tag, f in op.FIELDS[op.PUT].items() if f.name in inline_file()]
    one, two = chunked(1), entries(2)
    ref = [entries(1)[0].chunk_id]

    pairs("tags_descending", "tlv_tags_descending", [good[1], good[0], *good[2:]])
    pairs("repeated_tag", "tlv_repeated_tag", [good[0], *good])
    pairs("unknown_tag_127", "tlv_unknown_tag_below_128", [*good, (127, b"")])
    pairs("unknown_tag_0", "tlv_unknown_tag_below_128", [(0, b""), *good])
    pairs("reserved_tag_15", "tlv_unknown_tag_below_128", [*good, (15, b"")])
    pairs("repeated_unknown_tag", "tlv_repeated_tag", [*good, (200, b""), (200, b"")])
    pairs("descending_unknown_tag", "tlv_tags_descending", [*good, (201, b""), (200, b"")])
    whole = tlv.encode(good)
    body("tlv_ends_inside_a_length", "tlv_truncated", _padded(whole + b"\xc8\0\0", True))
    body("tlv_ends_after_a_tag", "tlv_truncated", _padded(whole + b"\xc8", True))
    body("tlv_value_shorter_than_its_length", "tlv_truncated", _padded(whole[:-1], True))
    body("tlv_length_at_its_highest", "tlv_truncated", _padded(whole + b"\xc8\xff\xff\xff\xff", True))
    overlapping = bytearray(whole)
    overlapping[1:5] = u32(16 + 5 + len(b"plan.md"))
    body("tlv_length_over_the_next_field", "parent_length", _padded(bytes(overlapping), True))
    body("tlv_twice", "tlv_tags_descending", _padded(whole + whole, True))
    body("tlv_trailing_zeros_counted_in", "tlv_tags_descending", put(_padded(whole, True), 0, u32(3068)))
    for at in (1, 2, 3):
        body(f"body_of_{at}_bytes", "body_truncated", bytes(at))
    body("body_length_at_its_highest", "body_truncated", put(_padded(whole, True), 0, u32(2**32 - 1)))
    body("tlv_empty", "mandatory_tag_missing", _padded(b"", False))
    body("tlv_longer_than_the_body", "body_truncated", put(_padded(whole, True), 0, u32(3069)))
    body("body_empty", "body_truncated", b"")
    for tag in (1, 2, 3, 4, 5, 6, 7, 9):
        pairs(f"file_without_tag_{tag}", "mandatory_tag_missing", [p for p in good if p[0] != tag])
    for tag in (1, 2, 5, 6):
        fields(f"directory_without_tag_{tag}", "mandatory_tag_missing", without(DIRECTORY, op.FIELDS[op.PUT][tag].name))
    fields("symlink_without_target", "mandatory_tag_missing", without(SYMLINK, "symlink_target"))
    fields("file_with_both_10_and_11", "both_or_neither_of_10_and_11", one | {"inline": b""}, refs=ref)
    fields("file_with_neither_10_nor_11", "both_or_neither_of_10_and_11", without(one, "manifest"))
    fields("file_with_symlink_target", "tag_not_of_node_kind", inline_file() | {"symlink_target": b"a"})
    fields("directory_with_size", "tag_not_of_node_kind", DIRECTORY | {"size": 0})
    fields("directory_with_inline_content", "tag_not_of_node_kind", DIRECTORY | {"inline": b""})
    fields("symlink_with_mode", "tag_not_of_node_kind", SYMLINK | {"mode": 0})
    fields("node_kind_0", "unknown_node_kind", inline_file() | {"kind": 0})
    fields("node_kind_4", "unknown_node_kind", inline_file() | {"kind": 4})
    fields("file_mode_2", "unknown_mode_bit", inline_file() | {"mode": 2})
    fields("directory_mode_1", "unknown_mode_bit", DIRECTORY | {"mode": 1})
    fields("class_6", "unknown_class", inline_file() | {"class": 6})
    fields("class_255", "unknown_class", inline_file() | {"class": 255})
    fields("file_mode_255", "unknown_mode_bit", inline_file() | {"mode": 255})
    for tag in (1, 3, 4, 5, 6, 7, 9):
        rule = f"{op.FIELDS[op.PUT][tag].name}_length"
        short = [(t, v[:-1] if t == tag else v) for t, v in good]
        long = [(t, v + b"\0" if t == tag else v) for t, v in good]
        pairs(f"tag_{tag}_one_byte_short", rule, short)
        pairs(f"tag_{tag}_one_byte_long", rule, long)
        pairs(f"tag_{tag}_empty", rule, [(t, b"" if t == tag else v) for t, v in good])
    pairs("parent_of_15_bytes", "parent_length", [(1, bytes(15)), *good[1:]])
    pairs("size_of_4_bytes", "size_length", [*good[:3], (4, u32(len(INLINE))), *good[4:]])
    fields("based_on_of_31_bytes", "based_on_length", inline_file() | {"based_on": bytes(31)})
    fields("conflict_of_of_47_bytes", "conflict_of_length", inline_file() | {"conflict_of": bytes(47)})
    fields("symlink_target_empty", "symlink_target_length", SYMLINK | {"symlink_target": b""})
    fields("symlink_target_of_4097_bytes", "symlink_target_length", SYMLINK | {"symlink_target": b"a" * 4097})
    fields("symlink_target_not_utf8", "symlink_target_not_utf8", SYMLINK | {"symlink_target": b"\xff"})
    fields("symlink_target_with_nul", "symlink_target_nul", SYMLINK | {"symlink_target": b"a\0b"})
    fields("scope_is_own_node_id", "scope_is_own_node_id", inline_file() | {"scope": NODE})
    fields("scope_zero_without_dedup", "scope_zero_without_dedup", inline_file() | {"scope": bytes(16)})
    fields("no_scope_in_a_dedup_vault", "scope_not_the_vaults", inline_file(), dedup=1)
    fields("node_scope_in_a_dedup_vault", "scope_not_the_vaults", inline_file() | {"scope": OTHER_NODE}, dedup=1)
    fields("inline_content_longer_than_2_kib", "inline_length", inline_file(bytes(2049)))
    fields("size_differs_from_inline_content", "size_differs", inline_file() | {"size": len(INLINE) + 1})
    fields("size_differs_from_manifest", "size_differs", one | {"size": 100_001}, refs=ref)
    pairs("manifest_without_entries", "manifest_length", [*good[:3], (4, bytes(8)), *good[4:8], (10, b"\0")])
    fields("manifest_with_a_byte_too_many", "manifest_length", one | {"manifest": one["manifest"] + b"\0"}, refs=ref)
    fields("manifest_level_255", "manifest_level", one | {"manifest": b"\xff" + one["manifest"][1:]}, refs=ref)
    cut = one["manifest"]
    for name, short in (
        ("level", b""),
        ("id", cut[:20]),
        ("key", cut[:50]),
        ("length", cut[:-1]),
        ("second", cut + cut[1:30]),
    ):
        fields(f"manifest_cut_in_its_{name}", "manifest_length", one | {"manifest": short}, refs=ref)
    lens = [Entry(e.chunk_id, e.ck, 1 << 63) for e in entries(2)]
    wraps = chunked_file(manifest.Manifest(1, lens)) | {"size": 0}
    fields("manifest_sum_of_2_64", "size_differs", wraps, refs=[e.chunk_id for e in lens])
    whole_list = [Entry(entries(1)[0].chunk_id, entries(1)[0].ck, 2**64 - 1)]
    said = chunked_file(manifest.Manifest(0, whole_list))
    fields("manifest_data_entry_at_its_highest", "manifest_entry_too_long", said, refs=ref)
    fields("manifest_level_4", "manifest_level", one | {"manifest": b"\x04" + one["manifest"][1:]}, refs=ref)
    many = entries(129)
    fields("manifest_of_129_entries", "manifest_too_many_entries", chunked(129), refs=[e.chunk_id for e in many])
    hollow = [two[0], Entry(two[1].chunk_id, two[1].ck, 0)]
    fields(
        "manifest_entry_of_length_0",
        "manifest_empty_entry",
        chunked_file(manifest.Manifest(0, hollow)),
        refs=[e.chunk_id for e in two],
    )
    big = [Entry(two[0].chunk_id, two[0].ck, 8 * 1024 * 1024 + 1)]
    fields(
        "manifest_data_entry_above_8_mib", "manifest_entry_too_long", chunked_file(manifest.Manifest(0, big)), refs=ref
    )
    refs_2 = [e.chunk_id for e in two]
    for name, refs in (
        ("missing", refs_2[:1]),
        ("one_more", [*refs_2, sha256(b"more")]),
        ("reordered", refs_2[::-1]),
        ("repeated", [*refs_2, refs_2[0]]),
        ("other", [refs_2[0], sha256(b"other")]),
    ):
        fields(f"refs_{name}", "refs_differ_from_manifest", chunked(2), refs=refs)
    fields("refs_beside_inline_content", "refs_differ_from_manifest", inline_file(), refs=ref)
    fields("refs_beside_a_directory", "refs_differ_from_manifest", DIRECTORY, refs=ref)

    data = op.encode(op.PUT, DIRECTORY)
    body("padding_too_long", "padding_wrong_length", _padded(data, False) + bytes(256))
    body("padding_missing", "padding_wrong_length", u32(len(data)) + data)
    body("padding_not_zero", "padding_not_zero", flip(_padded(data, False), -1))
    body("padding_not_zero_right_after_the_tlv", "padding_not_zero", flip(_padded(data, False), 4 + len(data)))
    body("inline_content_in_1024", "padding_wrong_length", (u32(len(whole)) + whole).ljust(1024, b"\0"))
    body("no_inline_content_in_3072", "padding_wrong_length", (u32(len(data)) + data).ljust(3072, b"\0"))

    def genesis(name: str, rule: str, **changed: int) -> None:
        fields(name, rule, GENESIS | changed, kind=op.GENESIS, node=op.ROOT)

    genesis("genesis_min_version_2", "genesis_min_version", min_version=2)
    genesis("genesis_min_version_0", "genesis_min_version", min_version=0)
    genesis("genesis_cdc_1", "genesis_unknown_cdc", cdc=1)
    genesis("genesis_codec_bit_1", "genesis_unknown_codec", codecs=2)
    genesis("genesis_dedup_2", "genesis_unknown_dedup", dedup=2)
    genesis("genesis_padding_0", "genesis_unknown_padding", padding=0)
    genesis("genesis_enrol_policy_1", "genesis_unknown_enrol_policy", enrol_policy=1)
    fields(
        "genesis_without_retention_hint",
        "mandatory_tag_missing",
        without(GENESIS, "retention_hint_days"),
        kind=op.GENESIS,
        node=op.ROOT,
    )
    for name in GENESIS:
        if name != "retention_hint_days":
            rule = "genesis_min_version" if name == "min_version" else f"genesis_unknown_{name.removesuffix('s')}"
            genesis(f"genesis_{name}_255", rule, **{name: 255})
    repeated = tlv.encode([(1, b"\1"), (1, b"\1")])
    of_vault = {"kind": op.GENESIS, "node": op.ROOT}
    body("genesis_tag_repeated", "tlv_repeated_tag", _padded(repeated, False, op.GENESIS), **of_vault)
    more = op.encode(op.GENESIS, GENESIS) + tlv.encode([(8, b"")])
    body("genesis_unknown_tag_8", "tlv_unknown_tag_below_128", _padded(more, False, op.GENESIS), **of_vault)
    machine = machine_add(SEED_A, "laptop")
    for name, rule, changed in (
        ("machine_kind_3", "unknown_machine_kind", {"kind": 3}),
        ("machine_name_empty", "name_length", {"name": b""}),
        ("machine_name_not_utf8", "name_not_utf8", {"name": b"\xff"}),
        ("machine_name_of_256_bytes", "name_length", {"name": b"a" * 256}),
        ("machine_key_of_31_bytes", "public_key_length", {"public_key": bytes(31)}),
    ):
        fields(name, rule, machine | changed, kind=op.MACHINE_ADD, node=MACHINE_A)
    fields("keyslot_type_3", "unknown_slot_type", keyslot(recovery_slot()) | {"type": 3}, kind=op.KEYSLOT, node=op.ROOT)
    fields(
        "keyslot_without_slot_id",
        "mandatory_tag_missing",
        without(keyslot(recovery_slot()), "slot_id"),
        kind=op.KEYSLOT,
        node=op.ROOT,
    )
    return fails


def build() -> Json:
    return vectors(
        "Ops before sealing: fields, their TLV, the refs and head beside it, and the padded plaintext "
        "(body). encode is false "
        "where only reading is tested. must_fail: bodies an op of that kind, node_id, dedup and refs must "
        "not be read from.",
        _cases(),
        _must_fail(),
    )
