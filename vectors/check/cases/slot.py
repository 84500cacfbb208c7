"""slot.json: keyslots of both types, and the many ways in which one is refused."""

import slot
from cases.fixture import (
    CREATED,
    NONCE,
    PASSWORD,
    SALT,
    SLOT_ID,
    VAULT_KEY,
    VID,
    Json,
    each_byte_changed,
    flip,
    put,
    refused,
    same,
    vectors,
)
from primitives import sha256, u32

RECOVERY_SECRET = bytes(range(0x80, 0x94))
FIELDS = [
    ("the_version", 4),
    ("m", 8),
    ("t", 12),
    ("p", 16),
    ("salt", 20),
    ("vid", 36),
    ("epoch", 52),
    ("created", 56),
    ("slot_id", 64),
    ("commitment", 80),
    ("nonce", 112),
    ("the_sealed_key", 124),
    ("tag", 156),
]
STATED = {
    "u": "1cd84e588c72f1d0bb3041fdd8a32de5ec738487c23ac9c5d84f119e05858bf8",
    "commitment": "4a49b403ef42777b16fc875cedc54ce94961b4b275687189468203461c0895c7",
    "slot_sha256": "af0b8090c62bd073f902df1e127996b60168185a09c0afd512788f43c95f6f8c",
}


def _sealed(type_: int, u: bytes, m: int, t: int, p: int, epoch: int = 1) -> bytes:
    return slot.seal(
        type=type_,
        u=u,
        m=m,
        t=t,
        p=p,
        salt=SALT,
        vid=VID,
        epoch=epoch,
        created=CREATED,
        slot_id=SLOT_ID,
        nonce=NONCE,
        vault_key=VAULT_KEY,
    )


def password_slot(password: str = PASSWORD) -> bytes:
    return _sealed(slot.PASSWORD, slot.stretch(password, SALT, 65_536, 3, 4), 65_536, 3, 4)


def recovery_slot() -> bytes:
    return _sealed(slot.RECOVERY, RECOVERY_SECRET, 0, 0, 0)


def _case(name: str, raw: bytes, type_: int, secret: str | bytes) -> Json:
    vault_key, u = slot.open_slot(raw, type_, secret)
    same(name, vault_key, VAULT_KEY)
    parsed = slot.parse(raw, type_)
    key = "password_utf8" if isinstance(secret, str) else "recovery_secret"
    return {
        "name": name,
        "type": type_,
        key: secret.encode().hex() if isinstance(secret, str) else secret.hex(),
        "m_kib": parsed.m,
        "t": parsed.t,
        "p": parsed.p,
        "salt": SALT.hex(),
        "vid": VID.hex(),
        "epoch": parsed.epoch,
        "created": CREATED,
        "slot_id": SLOT_ID.hex(),
        "nonce": NONCE.hex(),
        "vault_key": VAULT_KEY.hex(),
        "u": u.hex(),
        "commitment": parsed.commitment.hex(),
        "slot": raw.hex(),
        "slot_sha256": sha256(raw).hex(),
    }


def _must_fail(good: bytes, recovery: bytes) -> list[Json]:
    cases = []

    def parse(name: str, rule: str, raw: bytes, expected: int = slot.PASSWORD) -> None:
        parsed_as = {slot.PASSWORD: "slot_password", slot.RECOVERY: "slot_recovery"}[expected]
        cases.append(refused(name, rule, parsed_as, raw, lambda: slot.parse(raw, expected)))

    def open_(name: str, raw: bytes, secret: str | bytes) -> None:
        type_, key, text = (
            (slot.PASSWORD, "password_utf8", secret.encode())
            if isinstance(secret, str)
            else (slot.RECOVERY, "recovery_secret", secret)
        )
        parsed_as = "slot_open_password" if isinstance(secret, str) else "slot_open_recovery"
        cases.append(
            refused(
                name,
                "wrong_secret_or_damaged",
                parsed_as,
                raw,
                lambda: slot.open_slot(raw, type_, secret),
                **{key: text.hex()},
            )
        )

    parse("bad_magic", "bad_magic", put(good, 0, b"SAKX"))
    parse("version_2", "unknown_version", put(good, 4, b"\x02"))
    parse("type_0", "unexpected_type", put(good, 5, b"\x00"))
    parse("type_3_reserved", "unexpected_type", put(good, 5, b"\x03"))
    parse("recovery_where_password_expected", "unexpected_type", recovery)
    parse("password_where_recovery_expected", "unexpected_type", good, slot.RECOVERY)
    parse("password_type_without_kdf", "kdf_not_of_type", put(good, 6, b"\x02"))
    parse("unknown_kdf", "kdf_not_of_type", put(good, 6, b"\x03"))
    parse("recovery_type_with_argon2id", "kdf_not_of_type", put(recovery, 6, b"\x01"), slot.RECOVERY)
    parse("nonzero_flags", "nonzero_flags", put(good, 7, b"\x01"))
    parse("m_below_floor", "policy_m_below_floor", put(good, 8, u32(65_535)))
    parse("m_above_ceiling", "policy_m_above_ceiling", put(good, 8, u32(1_048_577)))
    parse("t_below_floor", "policy_t_below_floor", put(good, 12, u32(2)))
    parse("t_above_ceiling", "policy_t_above_ceiling", put(good, 12, u32(17)))
    parse("p_below_floor", "policy_p_below_floor", put(good, 16, b"\x00"))
    parse("p_above_ceiling", "policy_p_above_ceiling", put(good, 16, b"\x09"))
    for name, at, width in (("m", 8, 4), ("t", 12, 4), ("p", 16, 1)):
        parse(f"{name}_at_its_highest", f"policy_{name}_above_ceiling", put(good, at, b"\xff" * width))
        if name != "p":
            parse(f"{name}_one", f"policy_{name}_below_floor", put(good, at, u32(1)))
            parse(f"{name}_zero", f"policy_{name}_below_floor", put(good, at, u32(0)))
        other = put(recovery, at, bytes(width)[1:] + b"\x01")
        parse(f"recovery_with_{name}_1", "policy_recovery_not_zero", other, slot.RECOVERY)
    rules = {
        range(0, 4): "bad_magic",
        range(4, 5): "unknown_version",
        range(5, 6): "unexpected_type",
        range(6, 7): "kdf_not_of_type",
        range(7, 8): "nonzero_flags",
        range(17, 20): "nonzero_reserved",
    }
    for name, rule, raw in each_byte_changed(good, rules):
        parse(name, rule, raw)
    for name, at in FIELDS:
        parse(f"truncated_before_{name}", "truncated", good[:at])
    parse("recovery_truncated", "truncated", recovery[:-1], slot.RECOVERY)
    parse("recovery_trailing_byte", "trailing_byte", recovery + b"\0", slot.RECOVERY)
    parse("two_slots", "trailing_byte", good + good)
    parse("recovery_with_m", "policy_recovery_not_zero", put(recovery, 8, u32(65_536)), slot.RECOVERY)
    for at in (17, 18, 19):
        parse(f"nonzero_reserved_byte_{at}", "nonzero_reserved", put(good, at, b"\x01"))
    parse("epoch_zero", "epoch_zero", put(good, 52, u32(0)))
    parse("truncated", "truncated", good[:-1])
    parse("empty", "truncated", b"")
    parse("trailing_byte", "trailing_byte", good + b"\x00")
    open_("wrong_password", good, PASSWORD + "r")
    open_("wrong_recovery_secret", recovery, flip(RECOVERY_SECRET, 0))
    for name, at in (
        ("salt", 20),
        ("vid", 36),
        ("epoch", 54),
        ("created", 63),
        ("slot_id", 64),
        ("commitment", 80),
        ("nonce", 112),
        ("ciphertext", 124),
        ("tag", -1),
    ):
        open_(f"bit_flipped_in_{name}", flip(recovery, at), RECOVERY_SECRET)
    open_("bit_flipped_in_password_slot", flip(good, 130), PASSWORD)
    return cases


def build() -> Json:
    good, recovery = password_slot(), recovery_slot()
    first = _case("password_stated_in_the_document", good, slot.PASSWORD, PASSWORD)
    for field, value in STATED.items():
        same(field, first[field], value)
    decomposed = "A\u030angstro\u0308m und Stra\u00dfe 9"
    same("normalised", slot.password_bytes(decomposed), "Ångström und Straße 9".encode())
    accented = _case(
        "password_typed_decomposed_is_normalised_to_nfc", password_slot(decomposed), slot.PASSWORD, decomposed
    )
    return vectors(
        "Keyslots SAKS. A case with password_utf8 is a password slot (the bytes as typed, before NFC), one with "
        "recovery_secret a recovery slot. parsed_as slot_password and slot_recovery must fail before any derivation.",
        [first, accented, _case("recovery", recovery, slot.RECOVERY, RECOVERY_SECRET)],
        _must_fail(good, recovery),
    )
