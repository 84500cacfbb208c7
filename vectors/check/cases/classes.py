"""classes.json: the chunk size class of a file, new and grown."""

import classes
from cases.fixture import Json, vectors

MIB = 1024 * 1024
GIB = 1024 * MIB
MEANINGFUL_SIZES = [
    0,
    1,
    128 * MIB,
    128 * MIB + 1,
    512 * MIB,
    512 * MIB + 1,
    GIB,
    GIB + 1,
    2 * GIB,
    2 * GIB + 1,
    4 * GIB,
    4 * GIB + 1,
    8 * GIB,
    8 * GIB + 1,
    16 * GIB,
    16 * GIB + 1,
    1024 * GIB,
]


def build() -> Json:
    cases: list[Json] = []
    for k in range(6):
        least, avg, most = classes.limits(k)
        cases.append({"name": f"limits_of_class_{k}", "class": k, "min": least, "avg": avg, "max": most})
    for size in MEANINGFUL_SIZES:
        cases.append({"name": f"new_file_of_{size}", "current": None, "size": size, "class": classes.of_size(size)})
    for k in range(6):
        sizes = {0, 1, GIB, 100 * GIB, classes.lower(k) // 4, classes.lower(k) // 4 + 1, classes.lower(k)}
        if (top := classes.upper(k)) is not None:
            sizes |= {top, 4 * top, 4 * top + 1}
        for size in sorted(sizes):
            name = f"class_{k}_file_now_{size}"
            cases.append({"name": name, "current": k, "size": size, "class": classes.next_class(k, size)})
    return vectors(
        "Cases with min are the limits of a class; the others choose one: current is null for a new file.", cases
    )
