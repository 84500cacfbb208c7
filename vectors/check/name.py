"""What may be called what inside a vault (docs/format.md, Names)."""

from primitives import Refused, require


def parse(name: bytes, in_root: bool) -> str:
    require(len(name) >= 1, "empty")
    require(len(name) <= 1024, "longer_than_1024_bytes")
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("not_utf8") from None
    require("/" not in text, "slash")
    require("\0" not in text, "nul")
    require(text not in (".", ".."), "dot_or_dot_dot")
    require(not (in_root and text == ".syncagent"), "own_directory_in_root")
    return text
