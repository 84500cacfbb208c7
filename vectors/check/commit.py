"""Signed commits `SACM`: sealing, the served form, every check that needs no other commit (docs/format.md, Commits)."""

from dataclasses import dataclass

import ed25519
import op
from keys import VaultKeys, genesis_hash, machine_id
from primitives import Reader, gcm_open, gcm_seal, hmac, require, sha256, u32, u64

HEADER_LEN, SIGNATURE_LEN = 192, 64
MOST_OPS, MOST_REFS = 1024, 128
LARGEST_OP, LARGEST_COMMIT = 64 * 1024, 16 * 1024 * 1024


@dataclass(frozen=True)
class PlainOp:
    """What a writer wants to say: `tlv` is None for the kinds without a body."""

    kind: int
    node_id: bytes
    tlv: bytes | None = None

    @property
    def refs(self) -> list[bytes]:
        return op.put_refs(self.tlv) if self.kind == op.PUT and self.tlv is not None else []

    @property
    def body(self) -> bytes:
        return b"" if self.tlv is None else op.body(self.kind, self.tlv)

    @property
    def head(self) -> bytes:
        return op.head(self.kind, self.node_id, len(self.refs), len(self.body) + 16 if self.body else 0)


@dataclass(frozen=True)
class SealedOp:
    head: bytes
    refs: bytes
    ct: bytes

    @property
    def raw(self) -> bytes:
        return self.head + self.refs + self.ct

    @property
    def hash(self) -> bytes:
        return op.op_hash(self.head, sha256(self.refs), sha256(self.ct))

    @property
    def dropped(self) -> bytes:
        """As it is served once retention has dropped refs and ct."""
        return self.head + sha256(self.refs) + sha256(self.ct)


@dataclass(frozen=True)
class Sealed:
    """A commit and everything on the way to it."""

    raw: bytes
    salt: bytes
    key: bytes
    ops: list[SealedOp]

    @property
    def header(self) -> bytes:
        return self.raw[:HEADER_LEN]

    @property
    def signature(self) -> bytes:
        return self.raw[-SIGNATURE_LEN:]

    @property
    def hash(self) -> bytes:
        return commit_hash(self.header, self.signature)


def commit_hash(header: bytes, signature: bytes) -> bytes:
    return sha256(b"\0" + header + signature)


def signed_message(header: bytes) -> bytes:
    return b"SyncAgent/v1/commit\0" + header


def commit_key(k_op: bytes, header_160: bytes) -> bytes:
    return hmac(k_op, b"\x02" + header_160)


def finish(header_160: bytes, ops: list[SealedOp], seed: bytes) -> bytes:
    """Adds ops_root, ops and signature to the first 160 bytes."""
    header = header_160 + sha256(b"".join(o.hash for o in ops))
    return header + b"".join(o.raw for o in ops) + ed25519.sign(seed, signed_message(header))


def seal(
    keys: VaultKeys, seed: bytes, *, n: int, prev: bytes, time_ms: int, random: bytes, ops: list[PlainOp]
) -> Sealed:
    pk = ed25519.public_key(seed)
    header_96 = (
        b"SACM"
        + bytes([1, 1, 0, 0])
        + keys.vid
        + machine_id(pk)
        + u64(n)
        + prev
        + u32(keys.epoch)
        + u32(len(ops))
        + u64(time_ms)
    )
    everything = b"".join(o.head + b"".join(o.refs) + o.body for o in ops)
    salt = hmac(keys.op, b"\x04" + random + header_96 + sha256(everything))
    header_160 = header_96 + salt + pk
    key = commit_key(keys.op, header_160)
    sealed = [seal_op(key, header_160, i, o.head, b"".join(o.refs), o.body) for i, o in enumerate(ops)]
    return Sealed(finish(header_160, sealed, seed), salt, key, sealed)


def seal_op(key: bytes, header_160: bytes, index: int, head: bytes, refs: bytes, body: bytes) -> SealedOp:
    ct = gcm_seal(key, nonce(index), body, header_160 + head + refs) if body else b""
    return SealedOp(head, refs, ct)


def nonce(index: int) -> bytes:
    return bytes(8) + u32(index)


def open_op(keys: VaultKeys, header: bytes, index: int, sealed: SealedOp) -> bytes:
    """The plaintext of an op."""
    aad = header[:160] + sealed.head + sealed.refs
    return gcm_open(commit_key(keys.op, header[:160]), nonce(index), sealed.ct, aad, "does_not_open")


def _read_head(r: Reader) -> tuple[bytes, int, bytes, int, int]:
    """(head, kind, node_id, n_refs, ct_len), each in itself and for its kind as it may be."""
    head = r.take(op.HEAD_LEN)
    h = Reader(head)
    kind, flags, zero = h.uint(1), h.uint(1), h.take(2)
    node_id, n_refs, ct_len, zero_2 = h.take(16), h.uint(4), h.uint(4), h.take(4)
    require(flags == 0, "op_nonzero_flags")
    require(zero + zero_2 == bytes(6), "op_nonzero_reserved")
    require(kind in op.KINDS.values(), "unknown_op_kind")
    if kind in op.SEALED_KINDS:
        body = ct_len - 16
        require(body > 0 and body % (256 if body <= 1024 else 1024) == 0, "op_ct_len_not_padded")
    else:
        require(ct_len == 0, "op_ct_len_of_kind_without_body")
    require(n_refs == 0 or kind == op.PUT, "op_refs_of_kind_without_refs")
    require(n_refs <= MOST_REFS, "op_too_many_refs")
    require(op.HEAD_LEN + 32 * n_refs + ct_len <= LARGEST_OP, "op_too_large")
    if kind in (op.GENESIS, op.KEYSLOT):
        require(node_id == bytes(16), "op_node_id_not_zero")
    elif kind in (op.PUT, op.TRASH, op.PURGE):
        require(node_id != bytes(16), "op_of_the_root")
    return head, kind, node_id, n_refs, ct_len


def _check_order(heads: list[tuple[bytes, int]]) -> None:
    for (node, kind), (next_node, next_kind) in zip(heads, heads[1:]):
        require((node, kind) != (next_node, next_kind), "op_duplicate_node_and_kind")
        require((node, kind) < (next_node, next_kind), "op_out_of_order")
    added = {node for node, kind in heads if kind == op.MACHINE_ADD}
    revoked = {node for node, kind in heads if kind == op.MACHINE_REVOKE}
    require(not added & revoked, "machine_added_and_revoked")
    states = [node for node, kind in heads if kind in (op.PUT, op.TRASH, op.PURGE)]
    require(len(states) == len(set(states)), "op_two_states_of_one_node")


def parse(raw: bytes, served: bool = False) -> tuple[bytes, list[SealedOp | bytes], bytes]:
    """(header, ops, signature). Everything that needs no key and no other commit has been checked.

    In the served form a dropped op is given as its 96 bytes instead of a `SealedOp`.
    """
    require(len(raw) <= LARGEST_COMMIT + (MOST_OPS if served else 0), "commit_too_large")
    r = Reader(raw)
    header = r.take(HEADER_LEN)
    h = Reader(header)
    require(h.take(4) == b"SACM", "bad_magic")
    require(h.uint(1) == 1, "unknown_version")
    require(h.uint(1) == 1, "unknown_alg")
    require(h.uint(1) == 0, "nonzero_flags")
    require(h.uint(1) == 0, "nonzero_reserved")
    h.take(16)
    author, n = h.take(16), h.uint(8)
    h.take(32)
    epoch, n_ops = h.uint(4), h.uint(4)
    h.take(8 + 32)
    pk, ops_root = h.take(32), h.take(32)
    require(n >= 1, "position_zero")
    require(n < 1 << 63, "position_above_2_63")
    require(epoch == 1, "wrong_epoch")
    require(1 <= n_ops <= MOST_OPS, "n_ops_out_of_range")
    require(machine_id(pk) == author, "machine_id_not_of_key")
    ops: list[SealedOp | bytes] = []
    hashes: list[bytes] = []
    order: list[tuple[bytes, int]] = []
    for _ in range(n_ops):
        form = r.uint(1) if served else 0
        require(form <= 1, "served_form_unknown")
        head, kind, node_id, n_refs, ct_len = _read_head(r)
        order.append((node_id, kind))
        if form == 1:
            require(kind in (op.PUT, op.TRASH), "served_dropped_kind")
            refs_hash, ct_hash = r.take(32), r.take(32)
            ops.append(head + refs_hash + ct_hash)
            hashes.append(op.op_hash(head, refs_hash, ct_hash))
        else:
            sealed = SealedOp(head, r.take(32 * n_refs), r.take(ct_len))
            ops.append(sealed)
            hashes.append(sealed.hash)
    signature = r.take(SIGNATURE_LEN)
    r.end()
    _check_order(order)
    kinds = [kind for _, kind in order]
    if n == 1:
        require(kinds == [op.GENESIS, op.MACHINE_ADD], "first_commit_not_genesis_and_machine_add")
        require(header[48:80] == genesis_hash(header[8:24]), "first_commit_not_on_hash_0")
    else:
        require(op.GENESIS not in kinds, "genesis_after_the_first_commit")
    for node_id, kind in order:
        require(kind != op.MACHINE_ADD or node_id == author, "machine_add_not_of_the_author")
    require(sha256(b"".join(hashes)) == ops_root, "wrong_ops_root")
    ed25519.verify_strict(pk, signed_message(header), signature)
    return header, ops, signature


def serve(sealed: Sealed, dropped: set[int]) -> bytes:
    """The served form, with the ops at the indexes of `dropped` dropped."""
    parts = [b"\x01" + o.dropped if i in dropped else b"\x00" + o.raw for i, o in enumerate(sealed.ops)]
    return sealed.header + b"".join(parts) + sealed.signature


def open_commit(keys: VaultKeys, raw: bytes, dedup: int) -> list[dict[int, op.Value] | None]:
    """Verifies a whole commit and opens every op; None for those without a body."""
    header, ops, _ = parse(raw)
    opened: list[dict[int, op.Value] | None] = []
    for index, sealed in enumerate(ops):
        if not sealed.ct:
            opened.append(None)
            continue
        kind, node_id = sealed.head[0], sealed.head[4:20]
        refs = [sealed.refs[at : at + 32] for at in range(0, len(sealed.refs), 32)]
        fields = op.parse_body(kind, node_id, dedup, refs, open_op(keys, header, index, sealed))
        if kind == op.MACHINE_ADD:
            require(fields[1] == header[128:160], "machine_add_of_another_key")
        opened.append(fields)
    return opened
