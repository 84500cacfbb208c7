"""names.json: what a node may be called."""

import name
from cases.fixture import Json, refused, vectors

GOOD: list[tuple[str, str | bytes, bool]] = [
    ("ascii", "plan.md", True),
    ("space_only", " ", True),
    ("backslash", "a\\b", True),
    ("newline", "a\nb", True),
    ("bidi_override", "a\u202eb", True),
    ("nfc", "\u00e9", True),
    ("nfd", "e\u0301", True),
    ("three_dots", "...", True),
    ("dot_first", ".a", True),
    ("windows_device", "CON", True),
    ("trailing_dot", "a.", True),
    ("colon", "a:b", True),
    ("own_directory_elsewhere", ".syncagent", False),
    ("own_directory_in_other_case", ".SyncAgent", True),
    ("own_directory_as_prefix", ".syncagent2", True),
    # What a system could take for another name stays in the vault; the machine it would harm does not place it.
    ("own_directory_as_short_name", "SYNCAG~1", True),
    ("own_directory_with_a_dot_behind", ".syncagent.", True),
    ("own_directory_with_a_space_behind", ".syncagent ", True),
    ("own_directory_as_a_stream", ".syncagent::$INDEX_ALLOCATION", True),
    ("own_directory_with_an_ignorable_character", ".sync\u200cagent", True),
    ("own_directory_in_fullwidth", ".\uff53yncagent", True),
    ("dot_dot_backslash", "..\\x", True),
    ("drive", "C:\\x", True),
    ("share", "\\\\host\\share", True),
    ("dots_and_a_space", ".. ", True),
    ("longest_of_four_byte_characters", "\U0001f600" * 256, True),
    ("astral", "\U0001f600", True),
    ("noncharacter", "\uffff", True),
    ("byte_order_mark", "\ufeff", True),
    ("longest", b"a" * 1024, True),
]
BAD: list[tuple[str, bytes, bool, str]] = [
    ("empty", b"", False, "empty"),
    ("longer_than_1024_bytes", b"a" * 1025, False, "longer_than_1024_bytes"),
    ("slash", b"a/b", False, "slash"),
    ("nul", b"a\x00b", False, "nul"),
    ("dot", b".", False, "dot_or_dot_dot"),
    ("dot_dot", b"..", False, "dot_or_dot_dot"),
    ("own_directory_in_root", b".syncagent", True, "own_directory_in_root"),
    ("lone_continuation", b"a\x80", False, "not_utf8"),
    ("truncated_sequence", b"\xe2\x82", False, "not_utf8"),
    ("overlong_slash", b"\xc0\xaf", False, "not_utf8"),
    ("overlong_nul", b"\xc0\x80", False, "not_utf8"),
    ("surrogate", b"\xed\xa0\x80", False, "not_utf8"),
    ("above_10ffff", b"\xf4\x90\x80\x80", False, "not_utf8"),
    ("absolute", b"/etc", False, "slash"),
    ("slash_alone", b"/", False, "slash"),
    ("dot_dot_slash", b"../x", False, "slash"),
    ("slash_dot_dot", b"x/..", False, "slash"),
    ("slash_behind", b"a/", False, "slash"),
    ("nul_alone", b"\x00", False, "nul"),
    ("nul_behind", b"a\x00", False, "nul"),
    ("dot_dot_nul", b"..\x00", False, "nul"),
    ("own_directory_and_more_in_root", b".syncagent/home", True, "slash"),
    ("overlong_dot_dot", b"\xc0\xae\xc0\xae", False, "not_utf8"),
    ("overlong_slash_of_three_bytes", b"\xe0\x80\xaf", False, "not_utf8"),
    ("surrogate_pair", b"\xed\xa0\xbd\xed\xb8\x80", False, "not_utf8"),
    ("utf16", b"a\x00b\x00", False, "nul"),
    ("byte_ff", b"\xff", False, "not_utf8"),
    ("longest_and_half_a_character", b"a" * 1023 + b"\xc3", False, "not_utf8"),
    ("longer_than_1024_bytes_in_256_characters", "\U0001f600".encode() * 256 + b"a", False, "longer_than_1024_bytes"),
]


def build() -> Json:
    cases: list[Json] = []
    for label, text, in_root in GOOD:
        data = text.encode() if isinstance(text, str) else text
        name.parse(data, in_root)
        cases.append({"name": label, "in_root": in_root, "bytes": data.hex()})
    must_fail = [
        refused(
            label, rule, "name", data, lambda data=data, in_root=in_root: name.parse(data, in_root), in_root=in_root
        )
        for label, data, in_root, rule in BAD
    ]
    return vectors("Names of nodes. in_root: the parent is the root directory.", cases, must_fail)
