"""Lists which test sees each refusal: ``python tests/planted/listing.py [COVERAGE]`` writes
``refusals.tsv``.

COVERAGE is what ``pytest --cov --cov-context=test`` left (``.coverage``): which test runs which line
of npk. What is listed stays while its test is there; of the tests that meet a new refusal the one
that runs the fewest lines is taken. A refusal that no test of this process meets has ``-`` for a
test: give it one.
"""

import ast
import sys
from collections import Counter

import planting
from coverage import CoverageData
from planting import NPK, REFUSALS


def main(coverage=""):
    listed = {tuple(row[1:3]): row[3] for row in planting.rows()}
    listed |= {tuple(row[:3]): row[3] for row in planting.rows()}
    found = CoverageData(coverage) if coverage else None
    met = _met(found) if found is not None else {}
    rows = {}
    for path in sorted(NPK.rglob("*.py")):
        file = path.relative_to(NPK).as_posix()
        for function, node in planting.refusals(ast.parse(path.read_text())):
            key = file, function, planting.condition(node)
            first, last = node.body[0].lineno, node.body[-1].end_lineno
            tests = [test for line in range(first, last + 1) for test in met.get((file, line), ())]
            before = listed.get(key, listed.get(key[1:], "-"))  # files may have been moved
            rows[key] = before if before != "-" else tests[0] if tests else rows.get(key, "-")
    head = "# file, function, condition, test that sees it where it never holds"
    lines = ["\t".join((*key, test)) for key, test in rows.items()]
    REFUSALS.write_text("\n".join([head, *lines]) + "\n")
    print(f"{len(rows)} refusals, {list(rows.values()).count('-')} that no test meets")


def _met(found):
    """The tests that run each line (file, number), those first that run few lines of npk."""
    found.read()
    lines = {
        (path.relative_to(NPK).as_posix(), line): {test.partition("|")[0] for test in tests} - {""}
        for path in NPK.rglob("*.py")
        for line, tests in found.contexts_by_lineno(str(path)).items()
    }
    size = Counter(test for tests in lines.values() for test in tests)
    return {
        line: sorted(tests, key=lambda test: (size[test], test)) for line, tests in lines.items()
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
