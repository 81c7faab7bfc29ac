# SPDX-License-Identifier: MIT
"""engine/jinja_case.inc: characters whose upper or title case is more than one character, from Python's own Unicode tables.

    python tools/gen/jinja_case.py engine/jinja_case.inc"""
import sys

HEAD = """/* SPDX-License-Identifier: MIT
 * Characters whose upper or title case is more than one character (Unicode's SpecialCasing.txt, the rows without conditions):
 * HT_UPPER(rows) and HT_TITLE(rows). Written by tools/gen/jinja_case.py; generated, do not edit. */
"""


def rows(case):
    out, line = [], "   "
    for c in range(0x110000):
        to = case(chr(c)) if not 0xD800 <= c < 0xE000 else ""
        if len(to) < 2:
            continue
        cell = " { 0x%X, { %s } }," % (c, ", ".join("0x%X" % ord(x) for x in to) + ", 0" * (3 - len(to)))
        if len(line) + len(cell) > 118:
            out.append(line)
            line = "   "
        line += cell
    return "\n".join(out + [line])


with open(sys.argv[1], "w") as f:
    f.write(HEAD + "HT_UPPER(\n" + rows(str.upper) + "\n)\nHT_TITLE(\n" + rows(str.title) + "\n)\n")
