"""invitation.json: the text of invitations."""

import base64

import invitation
from cases.fixture import Json, refused, same, vectors
from primitives import sha256

SECRET = bytes(range(0xE0, 0xF0))
CERTIFICATE_HASH = sha256(b"certificate")


def _case(name: str, secret: bytes, certificate_hash: bytes) -> Json:
    text = invitation.write(secret, certificate_hash)
    for form in (text, text.upper(), f" {text}\n"):
        same(form, invitation.read(form), (secret, certificate_hash))
    return {"name": name, "secret": secret.hex(), "certificate_sha256": certificate_hash.hex(), "text": text}


def _text(raw: bytes) -> str:
    return invitation.PREFIX + base64.b32encode(raw).decode().rstrip("=").lower()


def build() -> Json:
    good = invitation.write(SECRET)
    wrong = {
        "bad_prefix": (good.replace("sa1-", "sa2-"), "bad_prefix"),
        "version_2": (_text(b"\x02" + SECRET), "unknown_version"),
        "one_byte_short": (_text(b"\x01" + SECRET[1:]), "wrong_length"),
        "half_a_certificate_hash": (_text(b"\x01" + SECRET + CERTIFICATE_HASH[:16]), "wrong_length"),
        "empty": ("", "bad_prefix"),
        "prefix_alone": ("sa1-", "wrong_length"),
        "without_prefix": (good[4:], "bad_prefix"),
        "version_0": (_text(b"\x00" + SECRET), "unknown_version"),
        "one_byte_long": (_text(b"\x01" + SECRET + b"\0"), "wrong_length"),
        "one_byte_short_of_a_certificate": (_text(b"\x01" + SECRET + CERTIFICATE_HASH[1:]), "wrong_length"),
        "two_certificates": (_text(b"\x01" + SECRET + CERTIFICATE_HASH * 2), "wrong_length"),
        "cut_by_one_character": (good[:-1], "not_base32"),
        "space_inside": (good[:10] + " " + good[10:], "not_base32"),
        "kelvin_sign": (_text(b"\x01" + b"\x55" * 16).replace("k", "\u212a", 1), "not_base32"),
        "fullwidth_letter": (good.replace("a", "\uff41", 2).replace("\uff41", "a", 1), "not_base32"),
        "padded": (good + "====", "padded"),
        "character_outside_the_alphabet": (good[:-1] + "1", "not_base32"),
        "nonzero_trailing_bits": (good[:-1] + chr(ord(good[-1]) + 1), "nonzero_trailing_bits"),
    }
    must_fail = [
        refused(name, rule, "invitation", text.encode(), lambda text=text: invitation.read(text), text=text)
        for name, (text, rule) in wrong.items()
    ]
    return vectors(
        "Invitations. certificate_sha256 is empty where none is pinned.",
        [_case("plain", SECRET, b""), _case("with_certificate", SECRET, CERTIFICATE_HASH)],
        must_fail,
    )
