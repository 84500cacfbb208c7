"""export.json: the key export."""

import export
import op
import slot
from cases.fixture import (
    PASSWORD,
    SALT,
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
from cases.op import GENESIS
from cases.slot import password_slot
from keys import genesis_hash
from primitives import hmac, sha256, u16, u64

URL = "https://sync.example.org"


def _case(name: str, u: bytes, n: int, hash_n: bytes, url: str) -> Json:
    tlv = op.encode(op.GENESIS, GENESIS)
    raw = export.write(password_slot(), u, n, hash_n, tlv, url)
    text = export.to_text(raw)
    same(name, export.from_text(f" {text}\n"), raw)
    back = export.read(raw, PASSWORD)
    same(name, (back.vault_key, back.n, back.hash_n, back.genesis_tlv, back.url), (VAULT_KEY, n, hash_n, tlv, url))
    return {
        "name": name,
        "password_utf8": PASSWORD.encode().hex(),
        "u": u.hex(),
        "slot": password_slot().hex(),
        "n": n,
        "hash_n": hash_n.hex(),
        "genesis_tlv": tlv.hex(),
        "url": url,
        "vault_key": VAULT_KEY.hex(),
        "vid": VID.hex(),
        "export": raw.hex(),
        "text": text,
    }


def _must_fail(good: bytes, u: bytes) -> list[Json]:
    fails: list[Json] = []

    def wrong(name: str, rule: str, data: bytes, password: str = PASSWORD) -> None:
        fails.append(
            refused(
                name, rule, "export", data, lambda: export.read(data, password), password_utf8=password.encode().hex()
            )
        )

    def remade(body: bytes) -> bytes:
        return body + hmac(export._mac_key(u, good[8:180]), body)

    wrong("bad_magic", "bad_magic", put(good, 0, b"SAEY"))
    wrong("version_2", "unknown_version", put(good, 4, b"\x02"))
    wrong("nonzero_reserved", "nonzero_reserved", put(good, 7, b"\x01"))
    wrong("slot_damaged", "bad_magic", put(good, 8, b"SAKX"))
    wrong("slot_policy_below_floor", "policy_m_below_floor", put(good, 16, bytes(4)))
    wrong("truncated", "truncated", good[:-1])
    wrong("trailing_byte", "trailing_byte", good + b"\0")
    header = {range(0, 4): "bad_magic", range(4, 5): "unknown_version", range(5, 8): "nonzero_reserved"}
    for name, rule, data in each_byte_changed(good, header):
        wrong(name, rule, data)
    for name, at in (
        ("nothing", 0),
        ("the_version", 4),
        ("the_slot", 8),
        ("n", 180),
        ("hash", 188),
        ("the_length_of_genesis", 220),
        ("genesis", 222),
        ("the_mac", len(good) - 32),
    ):
        wrong(f"truncated_before_{name}", "truncated", good[:at])
    genesis_len = int.from_bytes(good[220:222], "big")
    url_len_at = 222 + genesis_len
    for name, rule, at, length in (
        ("genesis_length_at_its_highest", "truncated", 220, 2**16 - 1),
        ("url_length_at_its_highest", "truncated", url_len_at, 2**16 - 1),
        ("url_length_one_more", "truncated", url_len_at, len(URL) + 1),
        ("url_length_one_less", "trailing_byte", url_len_at, len(URL) - 1),
        ("url_length_zero", "trailing_byte", url_len_at, 0),
        ("genesis_length_zero", "truncated", 220, 0),
    ):
        wrong(name, rule, remade(put(good[:-32], at, u16(length))))
    # One byte of the genesis is read as the address's length: 0x1e00 where there are not as many.
    wrong("genesis_length_one_less", "truncated", remade(put(good[:-32], 220, u16(genesis_len - 1))))
    for name, at, value in (("m", 16, b"\xff" * 4), ("t", 20, b"\xff" * 4), ("p", 24, b"\xff")):
        wrong(f"slot_policy_{name}_at_its_highest", f"policy_{name}_above_ceiling", remade(put(good[:-32], at, value)))
    both = op.encode(op.GENESIS, GENESIS) * 2
    wrong("genesis_twice", "tlv_tags_descending", export.write(good[8:180], u, 7, sha256(b"7"), both, URL))
    wrong("wrong_password", "wrong_secret_or_damaged", good, PASSWORD + "r")
    wrong("position_changed", "wrong_mac", flip(good, 187))
    wrong("hash_changed", "wrong_mac", flip(good, 188))
    wrong("url_changed", "wrong_mac", flip(good, -33))
    wrong("mac_changed", "wrong_mac", flip(good, -1))
    wrong("position_zero_without_hash_0", "position_zero_without_hash_0", remade(put(good[:-32], 180, u64(0))))
    tlv = op.encode(op.GENESIS, GENESIS | {"enrol_policy": 1})
    wrong(
        "genesis_with_unknown_policy",
        "genesis_unknown_enrol_policy",
        export.write(good[8:180], u, 7, sha256(b"7"), tlv, URL),
    )
    wrong("without_genesis", "mandatory_tag_missing", export.write(good[8:180], u, 7, sha256(b"7"), b"", URL))
    url_at = good.rindex(u16(len(URL)) + URL.encode()) + 2
    wrong("url_not_utf8", "url_not_utf8", remade(put(good[:-32], url_at, b"\xff")))
    return fails


def build() -> Json:
    u = slot.stretch(PASSWORD, SALT, 65_536, 3, 4)
    first = _case("before_the_first_commit", u, 0, genesis_hash(VID), "")
    second = _case("with_position_and_url", u, 7, sha256(b"some commit"), URL)
    return vectors(
        "Key exports: the bytes and the line of text. password_utf8 is the export's own password.",
        [first, second],
        _must_fail(bytes.fromhex(second["export"]), u),
    )
