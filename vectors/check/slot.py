"""The keyslot `SAKS`: 172 bytes that hold the vault key under a password or recovery code (docs/format.md, Keyslot)."""

import unicodedata
from dataclasses import dataclass

from argon2.low_level import Type, hash_secret_raw

from primitives import Reader, Refused, gcm_open, gcm_seal, hkdf, require, u32, u64

PASSWORD, RECOVERY = 1, 2
SIZE = 172
KDF_OF_TYPE = {PASSWORD: 1, RECOVERY: 2}
M_RANGE, T_RANGE, P_RANGE = (65_536, 1_048_576), (3, 16), (1, 8)


@dataclass(frozen=True)
class Slot:
    """The fields of a parsed keyslot; `raw` is the whole of it."""

    type: int
    m: int
    t: int
    p: int
    salt: bytes
    vid: bytes
    epoch: int
    created: int
    slot_id: bytes
    commitment: bytes
    nonce: bytes
    sealed: bytes
    raw: bytes


def password_bytes(password: str) -> bytes:
    """The bytes Argon2id sees: NFC, UTF-8, nothing trimmed."""
    return unicodedata.normalize("NFC", password).encode("utf-8")


def stretch(password: str, salt: bytes, m: int, t: int, p: int) -> bytes:
    """`u` of a password slot. The caller has checked the policy."""
    return hash_secret_raw(
        password_bytes(password),
        salt,
        time_cost=t,
        memory_cost=m,
        parallelism=p,
        hash_len=32,
        type=Type.ID,
        version=0x13,
    )


def _derive(u: bytes, salt: bytes, label: str, head: bytes) -> bytes:
    return hkdf(u, salt, b"SyncAgent/v1/" + label.encode() + b"\0" + head, 32)


def seal(
    *,
    type: int,
    u: bytes,
    m: int,
    t: int,
    p: int,
    salt: bytes,
    vid: bytes,
    epoch: int,
    created: int,
    slot_id: bytes,
    nonce: bytes,
    vault_key: bytes,
) -> bytes:
    head = (
        b"SAKS"
        + bytes([1, type, KDF_OF_TYPE[type], 0])
        + u32(m)
        + u32(t)
        + bytes([p, 0, 0, 0])
        + salt
        + vid
        + u32(epoch)
        + u64(created)
        + slot_id
    )
    aad = head + _derive(u, salt, "slot-commit", head) + nonce
    return aad + gcm_seal(_derive(u, salt, "slot-kek", head), nonce, vault_key, aad)


def parse(raw: bytes, expected_type: int) -> Slot:
    """Checks everything that can be checked before the slow derivation, the policy included."""
    r = Reader(raw)
    require(r.take(4) == b"SAKS", "bad_magic")
    require(r.uint(1) == 1, "unknown_version")
    type_ = r.uint(1)
    require(type_ == expected_type, "unexpected_type")
    require(r.uint(1) == KDF_OF_TYPE[type_], "kdf_not_of_type")
    require(r.uint(1) == 0, "nonzero_flags")
    m, t, p = r.uint(4), r.uint(4), r.uint(1)
    require(r.take(3) == bytes(3), "nonzero_reserved")
    salt, vid, epoch, created, slot_id = r.take(16), r.take(16), r.uint(4), r.uint(8), r.take(16)
    commitment, nonce, sealed = r.take(32), r.take(12), r.take(48)
    r.end()
    require(epoch >= 1, "epoch_zero")
    if type_ == RECOVERY:
        require(m == t == p == 0, "policy_recovery_not_zero")
    else:
        for name, value, (low, high) in (("m", m, M_RANGE), ("t", t, T_RANGE), ("p", p, P_RANGE)):
            require(value >= low, f"policy_{name}_below_floor")
            require(value <= high, f"policy_{name}_above_ceiling")
    return Slot(type_, m, t, p, salt, vid, epoch, created, slot_id, commitment, nonce, sealed, raw)


def open_slot(raw: bytes, expected_type: int, secret: str | bytes) -> tuple[bytes, bytes]:
    """Returns (vault key, u). `secret` is the password, or the 20 bytes of the recovery code."""
    slot = parse(raw, expected_type)
    if isinstance(secret, str):
        u = stretch(secret, slot.salt, slot.m, slot.t, slot.p)
    else:
        u = secret
    head = raw[:80]
    if _derive(u, slot.salt, "slot-commit", head) != slot.commitment:
        raise Refused("wrong_secret_or_damaged")
    key = gcm_open(
        _derive(u, slot.salt, "slot-kek", head), slot.nonce, slot.sealed, raw[:124], "wrong_secret_or_damaged"
    )
    return key, u
