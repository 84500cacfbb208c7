"""commit.json: whole commits, how they are served, and what is no commit."""

import chunk
import commit
import ed25519
import manifest
import op
from cases.fixture import (
    KEYS,
    MACHINE_A,
    MACHINE_B,
    NODE,
    OTHER_NODE,
    SEED_A,
    SEED_B,
    VAULT,
    VID,
    Json,
    counter_bytes,
    each_byte_changed,
    flip,
    put,
    refused,
    same,
    vectors,
)
from cases.op import DIRECTORY, GENESIS, chunked_file, inline_file, keyslot, machine_add
from cases.slot import recovery_slot
from chunk import Entry
from commit import PlainOp, SealedOp
from keys import genesis_hash, machine_id
from primitives import sha256, u32, u64

TIME_MS = 1_700_000_000_123
PHOTO = counter_bytes(b"photo", 10_000)
NODE_3 = bytes(range(0xE0, 0xF0))


def _genesis_ops() -> list[PlainOp]:
    return [
        PlainOp(op.GENESIS, op.ROOT, op.encode(op.GENESIS, GENESIS)),
        PlainOp(op.MACHINE_ADD, MACHINE_A, op.encode(op.MACHINE_ADD, machine_add(SEED_A, "laptop"))),
    ]


def _later_ops() -> list[PlainOp]:
    """One of every kind a working vault sees, in the order they have to stand in."""
    photo = chunk.seal_data(KEYS, NODE, PHOTO)
    file = chunked_file(manifest.Manifest(0, [Entry(photo.chunk_id, photo.ck, len(PHOTO))]))
    ops = [
        PlainOp(op.KEYSLOT, op.ROOT, op.encode(op.KEYSLOT, keyslot(recovery_slot()))),
        PlainOp(op.MACHINE_ADD, MACHINE_B, op.encode(op.MACHINE_ADD, machine_add(SEED_B, "desktop"))),
        PlainOp(op.MACHINE_REVOKE, MACHINE_A),
        PlainOp(op.PUT, NODE, op.encode(op.PUT, file)),
        PlainOp(op.PUT, OTHER_NODE, op.encode(op.PUT, DIRECTORY)),
        PlainOp(op.PUT, NODE_3, op.encode(op.PUT, inline_file())),
        PlainOp(op.TRASH, bytes([0xF1]) * 16),
        PlainOp(op.PURGE, bytes([0xF2]) * 16),
    ]
    return sorted(ops, key=lambda o: (o.node_id, o.kind))


def _op_json(sealed: commit.Sealed, plain: list[PlainOp]) -> list[Json]:
    return [
        {
            "index": i,
            "kind": p.kind,
            "node_id": p.node_id.hex(),
            "tlv": (p.tlv or b"").hex(),
            "refs": [r.hex() for r in p.refs],
            "nonce": commit.nonce(i).hex() if p.body else "",
            "head": s.head.hex(),
            "ct": s.ct.hex(),
            "op_hash": s.hash.hex(),
        }
        for i, (p, s) in enumerate(zip(plain, sealed.ops))
    ]


def _case(
    name: str, seed: bytes, n: int, prev: bytes, random: bytes, ops: list[PlainOp], dropped: set[int]
) -> tuple[Json, commit.Sealed]:
    sealed = commit.seal(KEYS, seed, n=n, prev=prev, time_ms=TIME_MS + n, random=random, ops=ops)
    commit.open_commit(KEYS, sealed.raw, 0)
    whole = commit.serve(sealed, set())
    same(name, commit.parse(whole, served=True), commit.parse(sealed.raw))
    served: list[Json] = [{"dropped": [], "bytes": whole.hex()}]
    if dropped:
        part = commit.serve(sealed, dropped)
        commit.parse(part, served=True)
        served.append({"dropped": sorted(dropped), "bytes": part.hex()})
    header = sealed.header
    return {
        "name": name,
        **VAULT,
        "dedup": 0,
        "machine_seed": seed.hex(),
        "machine_id": header[24:40].hex(),
        "n": n,
        "prev": prev.hex(),
        "time_ms": TIME_MS + n,
        "random": random.hex(),
        "salt": sealed.salt.hex(),
        "commit_key": sealed.key.hex(),
        "ops": _op_json(sealed, ops),
        "ops_root": header[160:].hex(),
        "header": header.hex(),
        "signature": sealed.signature.hex(),
        "hash": sealed.hash.hex(),
        "commit": sealed.raw.hex(),
        "served": served,
    }, sealed


def _must_fail(good: commit.Sealed, genesis: commit.Sealed) -> list[Json]:
    """Each is signed and rooted anew where the broken rule would otherwise hide behind a broken signature."""
    fails: list[Json] = []

    def raw(name: str, rule: str, data: bytes) -> None:
        fails.append(refused(name, rule, "commit", data, lambda: commit.parse(data)))

    def header(name: str, rule: str, at: int, value: bytes) -> None:
        raw(name, rule, commit.finish(put(good.header[:160], at, value), good.ops, SEED_B))

    def ops(name: str, rule: str, wrong: list[SealedOp], *, n: int | None = None) -> None:
        start = put(good.header[:160], 84, u32(len(wrong)))
        raw(name, rule, commit.finish(start if n is None else put(start, 40, u64(n)), wrong, SEED_B))

    header("bad_magic", "bad_magic", 0, b"SACX")
    header("version_2", "unknown_version", 4, b"\x02")
    header("alg_2", "unknown_alg", 5, b"\x02")
    header("nonzero_flags", "nonzero_flags", 6, b"\x01")
    header("nonzero_reserved", "nonzero_reserved", 7, b"\x01")
    rules = {
        range(0, 4): "bad_magic",
        range(4, 5): "unknown_version",
        range(5, 6): "unknown_alg",
        range(6, 7): "nonzero_flags",
        range(7, 8): "nonzero_reserved",
        range(80, 84): "wrong_epoch",
    }
    for name, rule, wrong in each_byte_changed(good.header, rules):
        raw(name, rule, commit.finish(wrong[:160], good.ops, SEED_B))
    header("position_at_its_highest", "position_above_2_63", 40, u64(2**64 - 1))
    # What is read as one more op is the signature.
    header("n_ops_one_more", "op_nonzero_flags", 84, u32(len(good.ops) + 1))
    header("machine_id_not_of_key", "machine_id_not_of_key", 24, MACHINE_A)
    header("position_zero", "position_zero", 40, u64(0))
    header("position_2_63", "position_above_2_63", 40, u64(1 << 63))
    header("epoch_2", "wrong_epoch", 80, u32(2))
    header("epoch_0", "wrong_epoch", 80, u32(0))
    header("n_ops_one_less", "trailing_byte", 84, u32(len(good.ops) - 1))
    header("n_ops_1025", "n_ops_out_of_range", 84, u32(1025))
    header("n_ops_at_its_highest", "n_ops_out_of_range", 84, u32(2**32 - 1))
    ops("n_ops_zero", "n_ops_out_of_range", [])

    def bare(kind: int, node: bytes, refs: bytes = b"", ct: bytes = b"", n_refs: int | None = None) -> SealedOp:
        return SealedOp(op.head(kind, node, len(refs) // 32 if n_refs is None else n_refs, len(ct)), refs, ct)

    a, b = bytes([0xF1]) * 16, bytes([0xF2]) * 16
    body = bytes(256 + 16)

    def ct_len(said: int) -> SealedOp:
        return SealedOp(op.head(op.PUT, a, 0, said), b"", body)

    ops("ops_out_of_order", "op_out_of_order", [bare(op.TRASH, b), bare(op.TRASH, a)])
    ops(
        "kinds_out_of_order",
        "op_out_of_order",
        [bare(op.MACHINE_REVOKE, MACHINE_B), bare(op.MACHINE_ADD, MACHINE_B, ct=body)],
    )
    ops("duplicate_node_and_kind", "op_duplicate_node_and_kind", [bare(op.TRASH, a), bare(op.TRASH, a)])
    ops("put_and_trash_of_one_node", "op_two_states_of_one_node", [bare(op.PUT, a, ct=body), bare(op.TRASH, a)])
    ops("trash_and_purge_of_one_node", "op_two_states_of_one_node", [bare(op.TRASH, a), bare(op.PURGE, a)])
    for name, kind in (("put", op.PUT), ("trash", op.TRASH), ("purge", op.PURGE)):
        ops(f"{name}_of_the_root", "op_of_the_root", [bare(kind, op.ROOT, ct=body if kind == op.PUT else b"")])
    ops("keyslot_with_a_node_id", "op_node_id_not_zero", [bare(op.KEYSLOT, a, ct=body)])
    for kind in (op.CHECKPOINT, op.EPOCH, op.SNAPSHOT, 10, 255):
        ops(f"op_kind_{kind}", "unknown_op_kind", [bare(kind, a, ct=body)])
    trash = bare(op.TRASH, a)
    ops("op_flags", "op_nonzero_flags", [SealedOp(put(trash.head, 1, b"\x01"), b"", b"")])
    for label, bit in (("lowest", 0x01), ("highest", 0x80)):
        flags = put(trash.head, 1, bytes([bit]))
        ops(f"op_flags_{label}_bit", "op_nonzero_flags", [SealedOp(flags, b"", b"")])
    for at in (2, 3, 28, 29, 30, 31):
        ops(f"op_reserved_byte_{at}", "op_nonzero_reserved", [SealedOp(put(trash.head, at, b"\x01"), b"", b"")])
    ops("trash_with_a_body", "op_ct_len_of_kind_without_body", [bare(op.TRASH, a, ct=body)])
    ops("machine_revoke_with_a_body", "op_ct_len_of_kind_without_body", [bare(op.MACHINE_REVOKE, MACHINE_A, ct=body)])
    ops("trash_with_refs", "op_refs_of_kind_without_refs", [bare(op.TRASH, a, refs=bytes(32))])
    ops("keyslot_with_refs", "op_refs_of_kind_without_refs", [bare(op.KEYSLOT, op.ROOT, refs=bytes(32), ct=body)])
    ops("put_without_a_body", "op_ct_len_not_padded", [bare(op.PUT, a)])
    ops("ct_len_at_its_highest", "op_too_large", [ct_len(2**32 - 1024 + 16)])
    ops("ct_len_of_a_tag_alone", "op_ct_len_not_padded", [bare(op.PUT, a, ct=bytes(16))])
    ops("ct_len_shorter_than_a_tag", "op_ct_len_not_padded", [bare(op.PUT, a, ct=bytes(15))])
    ops("ct_len_beyond_the_commit", "truncated", [ct_len(1024 + 16)])
    ops("n_refs_beyond_the_commit", "truncated", [bare(op.PUT, a, ct=body, n_refs=128)])
    ops("put_body_of_255_bytes", "op_ct_len_not_padded", [bare(op.PUT, a, ct=body[1:])])
    ops("put_body_of_1280_bytes", "op_ct_len_not_padded", [bare(op.PUT, a, ct=bytes(1280 + 16))])
    ops("put_with_129_refs", "op_too_many_refs", [bare(op.PUT, a, refs=bytes(129 * 32), ct=body)])
    ops("put_of_more_than_64_kib", "op_too_large", [bare(op.PUT, a, ct=bytes(64 * 1024 + 16))])
    ops("n_refs_at_its_highest", "op_too_many_refs", [bare(op.PUT, a, ct=body, n_refs=2**32 - 1)])
    ops("machine_add_of_another_machine", "machine_add_not_of_the_author", [bare(op.MACHINE_ADD, MACHINE_A, ct=body)])
    both = [bare(op.MACHINE_ADD, MACHINE_B, ct=body), bare(op.MACHINE_REVOKE, MACHINE_B)]
    ops("machine_added_and_revoked", "machine_added_and_revoked", both)
    ops("genesis_in_a_later_commit", "genesis_after_the_first_commit", [bare(op.GENESIS, op.ROOT, ct=body)])
    ops(
        "first_commit_without_genesis",
        "first_commit_not_genesis_and_machine_add",
        [bare(op.MACHINE_ADD, MACHINE_B, ct=body)],
        n=1,
    )
    ops(
        "first_commit_without_machine_add",
        "first_commit_not_genesis_and_machine_add",
        [bare(op.GENESIS, op.ROOT, ct=body)],
        n=1,
    )
    first = [bare(op.GENESIS, op.ROOT, ct=body), bare(op.MACHINE_ADD, MACHINE_B, ct=body)]
    ops(
        "first_commit_with_more",
        "first_commit_not_genesis_and_machine_add",
        sorted([*first, trash], key=lambda o: o.head[4:20]),
        n=1,
    )

    ops("first_commit_not_on_hash_0", "first_commit_not_on_hash_0", first, n=1)

    root_off = flip(good.header, 160)
    raw(
        "wrong_ops_root",
        "wrong_ops_root",
        root_off + good.raw[192:-64] + ed25519.sign(SEED_B, commit.signed_message(root_off)),
    )
    raw("bit_flipped_in_an_op", "wrong_ops_root", flip(good.raw, 192 + 40))
    raw("bit_flipped_in_the_time", "bad_signature", flip(good.raw, 95))
    raw("bad_signature", "bad_signature", flip(good.raw, -40))
    raw(
        "signed_by_another_machine",
        "bad_signature",
        good.raw[:-64] + ed25519.sign(SEED_A, commit.signed_message(good.header)),
    )
    raw("signed_without_context", "bad_signature", good.raw[:-64] + ed25519.sign(SEED_B, good.header))
    scalar = int.from_bytes(good.signature[32:], "little") + ed25519.L
    raw("signature_scalar_not_reduced", "signature_scalar_not_reduced", good.raw[:-32] + scalar.to_bytes(32, "little"))
    raw(
        "small_order_signature_point",
        "small_order_signature_point",
        good.raw[:-64] + ed25519.forge_with_identity_point(SEED_B, commit.signed_message(good.header)),
    )
    for name, pk in (
        ("small_order_public_key", ed25519.IDENTITY),
        ("noncanonical_public_key", (ed25519.P + 1).to_bytes(32, "little")),
    ):
        start = put(put(good.header[:160], 24, machine_id(pk)), 128, pk)
        start = put(start, 84, u32(1))
        anyone = ed25519.BASE_POINT + (1).to_bytes(32, "little")
        raw(name, name, commit.finish(start, [trash], SEED_B)[:-64] + anyone)
    at = 192
    for i, o in enumerate(good.ops[:4]):
        raw(f"truncated_before_op_{i}", "truncated", good.raw[:at])
        raw(f"truncated_in_the_head_of_op_{i}", "truncated", good.raw[: at + 31])
        raw(f"truncated_behind_the_head_of_op_{i}", "truncated", good.raw[: at + 32])
        at += len(o.raw)
    for name, length in (("the_version", 4), ("vid", 8), ("ops_root", 160), ("the_last_byte_of_ops_root", 191)):
        raw(f"truncated_before_{name}", "truncated", good.raw[:length])
    raw("truncated_before_the_signature", "truncated", good.raw[:-64])
    raw("signature_twice", "trailing_byte", good.raw + good.signature)
    raw("first_op_twice", "trailing_byte", good.raw[:-64] + good.ops[0].raw + good.signature)
    raw("truncated", "truncated", good.raw[:-1])
    raw("header_only", "truncated", good.header)
    raw("empty", "truncated", b"")
    raw("trailing_byte", "trailing_byte", good.raw + b"\0")

    def opening(name: str, rule: str, header_160: bytes, wrong: list[SealedOp]) -> None:
        data = commit.finish(header_160, wrong, SEED_B)
        fails.append(
            refused(name, rule, "commit_open", data, lambda: commit.open_commit(KEYS, data, 0), **VAULT, dedup=0)
        )

    start = good.header[:160]
    put_at = next(i for i, o in enumerate(good.ops) if o.head[0] == op.PUT and o.refs)
    victim = good.ops[put_at]
    for name, changed in (
        ("ciphertext", SealedOp(victim.head, victim.refs, flip(victim.ct, 0))),
        ("tag", SealedOp(victim.head, victim.refs, flip(victim.ct, -1))),
        ("refs", SealedOp(victim.head, flip(victim.refs, 0), victim.ct)),
        ("node_id", SealedOp(flip(victim.head, 19), victim.refs, victim.ct)),
    ):
        opening(f"op_{name}_changed", "does_not_open", start, [*good.ops[:put_at], changed, *good.ops[put_at + 1 :]])
    opening("op_at_another_index", "does_not_open", put(start, 84, u32(1)), [good.ops[0]])
    opening("op_under_another_prev", "does_not_open", flip(start, 48), good.ops)
    stolen = PlainOp(op.MACHINE_ADD, MACHINE_B, op.encode(op.MACHINE_ADD, machine_add(SEED_A, "laptop")))
    foreign = commit.seal(KEYS, SEED_B, n=2, prev=genesis.hash, time_ms=TIME_MS, random=bytes(32), ops=[stolen])
    opening("machine_add_of_another_key", "machine_add_of_another_key", foreign.header[:160], foreign.ops)

    def served(name: str, rule: str, data: bytes) -> None:
        fails.append(refused(name, rule, "commit_served", data, lambda: commit.parse(data, served=True)))

    whole, part = commit.serve(good, set()), commit.serve(good, {put_at})
    added_at = next(i for i, o in enumerate(good.ops) if o.head[0] == op.MACHINE_ADD)
    served("served_form_2", "served_form_unknown", put(whole, 192, b"\x02"))
    served("served_keyslot_dropped", "served_dropped_kind", commit.serve(good, {0}))
    served(
        "served_dropped_with_another_refs_hash", "wrong_ops_root", part.replace(sha256(victim.refs), sha256(b"other"))
    )
    served("served_dropped_with_another_ct_hash", "wrong_ops_root", part.replace(sha256(victim.ct), sha256(b"other")))
    served("served_form_255", "served_form_unknown", put(whole, 192, b"\xff"))
    served("served_machine_add_dropped", "served_dropped_kind", commit.serve(good, {added_at}))
    served("served_purge_dropped", "served_dropped_kind", commit.serve(good, {len(good.ops) - 1}))
    served("served_truncated_before_the_first_op", "truncated", part[:192])
    served("served_truncated_behind_a_form", "truncated", part[:193])
    served("served_truncated", "truncated", part[:-1])
    served("served_trailing_byte", "trailing_byte", part + b"\0")
    served("posted_form_where_served_is_expected", "op_nonzero_reserved", genesis.raw)
    return fails


def build() -> Json:
    first, genesis = _case("genesis", SEED_A, 1, genesis_hash(VID), sha256(b"random 1"), _genesis_ops(), set())
    ops = _later_ops()
    put_at = next(i for i, o in enumerate(ops) if o.refs)
    second, later = _case("several_ops", SEED_B, 2, genesis.hash, sha256(b"random 2"), ops, {put_at})
    third, _ = _case(
        "trash_only",
        SEED_B,
        3,
        later.hash,
        sha256(b"random 3"),
        [PlainOp(op.TRASH, NODE)],
        {0},
    )
    return vectors(
        "Commits, a chain of three. random is what the writer drew; served gives the forms a server may "
        "answer with. must_fail: "
        "commit is what a server checks of a posted commit, commit_served what a client parses, commit_open "
        "needs the vault key.",
        [first, second, third],
        _must_fail(later, genesis),
    )
