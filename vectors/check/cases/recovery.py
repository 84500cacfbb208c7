"""recovery.json: recovery codes as written and as read."""

import recovery
from cases.fixture import Json, refused, same, vectors
from cases.slot import RECOVERY_SECRET
from primitives import sha256


def _case(name: str, secret: bytes) -> Json:
    text = recovery.write(secret)
    read_as = [
        text,
        text.lower(),
        text.replace("-", ""),
        text.replace("-", " "),
        f" {text}\n",
        text.replace("0", "O").replace("1", "I"),
        text.lower().replace("0", "o").replace("1", "l"),
    ]
    for form in read_as:
        same(form, recovery.read(form), secret)
    return {"name": name, "recovery_secret": secret.hex(), "text": text, "check": text[-4:], "also_read": read_as[1:]}


def build() -> Json:
    good = recovery.write(RECOVERY_SECRET)
    one = recovery.write(bytes(19) + b"\x01")
    other = "0" if good[0] != "0" else "1"
    wrong = {
        "one_character_changed": (other + good[1:], "wrong_check_characters"),
        "two_groups_swapped": ("-".join([good[5:9], good[:4], good[10:]]), "wrong_check_characters"),
        "check_characters_changed": (good[:-4] + recovery.check_characters(b""), "wrong_check_characters"),
        "one_character_short": (good[:-1], "wrong_length"),
        "one_character_more": (good + "0", "wrong_length"),
        "without_check_group": (good[:-5], "wrong_length"),
        "letter_u": ("U" + good[1:], "character_outside_the_alphabet"),
        "empty": ("", "wrong_length"),
        "dashes_alone": ("----", "wrong_length"),
        "a_letter_that_becomes_s": (good.replace("S", "\u017f", 1), "character_outside_the_alphabet"),
        "a_letter_that_becomes_i": (one.replace("1", "\u0131"), "character_outside_the_alphabet"),
        "fullwidth_digit": (good.replace("0", "\uff10", 1), "character_outside_the_alphabet"),
        "no_break_space": (good.replace("-", "\u00a0"), "character_outside_the_alphabet"),
        "underscore": (good.replace("-", "_"), "character_outside_the_alphabet"),
        "nul_behind": (good + "\0", "character_outside_the_alphabet"),
        "twice": (good + good, "wrong_length"),
        "bits_shifted_by_one_character": (good[1:-4] + good[-5:] + "0", "wrong_check_characters"),
    }
    must_fail = [
        refused(name, rule, "recovery_code", text.encode(), lambda text=text: recovery.read(text), text=text)
        for name, (text, rule) in wrong.items()
    ]
    return vectors(
        "Recovery codes. text is what is written; everything in also_read gives the same secret.",
        [
            _case("ascending", RECOVERY_SECRET),
            _case("zeros", bytes(20)),
            _case("ones", b"\xff" * 20),
            _case("hashed", sha256(b"recovery")[:20]),
        ],
        must_fail,
    )
