"""Lists which test sees each refusal, from what ``noting.py`` noted: ``python
tests/planted/listing.py NOTES...`` writes ``refusals.tsv``.

A refusal that no test of this process meets has ``-`` for a test: give it one.
"""

import sys
from collections import defaultdict
from pathlib import Path

from planting import NPK, REFUSALS, condition, refusals


def main(notes):
    tests = defaultdict(list)
    for line in (line for note in notes for line in Path(note).read_text().splitlines()):
        file, number, seconds, test = line.split("\t")
        tests[file, int(number)].append((float(seconds), test))
    rows = []
    for path in sorted(NPK.rglob("*.py")):
        file = path.relative_to(NPK).as_posix()
        for function, node in refusals(path.read_text()):
            end = max(getattr(statement, "end_lineno", 0) for statement in node.body)
            met = sorted(
                found
                for line in range(node.lineno, end + 1)
                for found in tests.get((file, line), ())
            )
            rows.append("\t".join((file, function, condition(node), met[0][1] if met else "-")))
    REFUSALS.write_text(
        "\n".join(
            [
                "# file, function, condition, test that sees it where it never holds",
                *dict.fromkeys(rows),
            ]
        )
        + "\n"
    )
    print(f"{len(rows)} refusals, {sum(row.endswith('-') for row in rows)} that no test meets")


if __name__ == "__main__":
    main(sys.argv[1:])
