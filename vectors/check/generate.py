#!/usr/bin/env python3
"""Writes the test vectors of docs/format.md to vectors/v1, or checks that the committed ones are still what comes out.

    python generate.py            writes every file
    python generate.py --check    writes nothing; exit status 1 if a file differs, is missing or is one too many

Nothing random and no clock enters: two runs give the same bytes.
"""

import argparse
import importlib
import json
import sys
from pathlib import Path

FILES = [
    "keys",
    "slot",
    "recovery",
    "export",
    "invitation",
    "names",
    "classes",
    "padding",
    "chunker",
    "chunk",
    "list_chunk",
    "manifest",
    "pack",
    "op",
    "commit",
    "event",
]
TARGET = Path(__file__).resolve().parent.parent / "v1"


def render(name: str) -> str:
    """The text of one file."""
    built = importlib.import_module(f"cases.{name}").build()
    for part in ("cases", "must_fail"):
        names = [case["name"] for case in built.get(part, [])]
        repeated = {n for n in names if names.count(n) > 1}
        assert not repeated, f"{name}: {part} of one name: {repeated}"
    return json.dumps(built, indent=1) + "\n"


def difference(path: Path, expected: str) -> str | None:
    """Why the committed file is not the one expected; None if it is."""
    if not path.exists():
        return "is missing"
    found = path.read_text(encoding="ascii", errors="replace").splitlines(keepends=True)
    for number, (line, wanted) in enumerate(zip(found, expected.splitlines(keepends=True)), start=1):
        if line != wanted:
            return f"differs at line {number}: has {line.strip()[:80]}, should have {wanted.strip()[:80]}"
    return None if "".join(found) == expected else "has another length"


def check() -> int:
    passed, failed = 0, 0
    for name in FILES:
        path = TARGET / f"{name}.json"
        try:
            why = difference(path, render(name))
        except AssertionError as e:
            why = f"cannot be generated: {e}"
        passed, failed = (passed, failed + 1) if why else (passed + 1, failed)
        print(f"FAIL v1/{path.name} {why}" if why else f"ok   v1/{path.name}")
    for path in sorted(TARGET.glob("*")):
        if path.name not in {f"{name}.json" for name in FILES}:
            failed += 1
            print(f"FAIL v1/{path.name} is not one of the generated files")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def write() -> int:
    TARGET.mkdir(exist_ok=True)
    for name in FILES:
        path = TARGET / f"{name}.json"
        path.write_text(render(name), encoding="ascii")
        print(f"wrote v1/{path.name}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes or checks the test vectors of docs/format.md.")
    parser.add_argument("--check", action="store_true", help="compare with the committed files instead of writing them")
    return check() if parser.parse_args().check else write()


if __name__ == "__main__":
    sys.exit(main())
