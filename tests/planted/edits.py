"""Faults that are no refusal left out: a text of npk, another one in its place, and the test that
must see it.
"""

from planting import Fault

SEEN_BY = {
    "tie.py": "test_gate_table.py",
    "gates/table.py": "test_gate_table.py",
    "graph/independence.py": "test_path_graph.py",
    "checks/invariance.py": "test_checks.py",
    "gram/writing.py": "test_stores.py",
}
TEXTS = {
    "tie.py": {"return preactivation > 0": "return preactivation >= 0"},
    "gates/table.py": {"json.dumps(to_dict(example.graph)).encode()": "b''"},
    "graph/independence.py": {
        "for second in node.inputs[i + 1 :]": "for second in node.inputs[i + 2 :]",
        "if not pa and a.inputs:": "if not pa and a.inputs and pb:",
        "elif pa and pa == pb:": "elif False:",
        "met |= {parameter}": "met |= set()",
    },
    "checks/invariance.py": {
        "(flips > 0) & (flips <= max(1, _ROUNDING * gates_each))": "flips >= 0",
        " and not rounding.all()": "",
    },
    "gram/writing.py": {
        "**asdict(engine.options), **digests": '"scale": engine.options.scale, **digests',
        '"network": sources[0].network,': "",
    },
}
EDITS = [
    Fault(file, "text", old, new, f"tests/{SEEN_BY[file]}")
    for file, texts in TEXTS.items()
    for old, new in texts.items()
]
