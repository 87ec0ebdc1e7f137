"""Faults that are no refusal left out: a text of npk, another one in its place, and the test that
must see it.
"""

from planting import Fault

NUMBERS, REFUSED = "test_numbers.py::test_", "test_path_graph.py::test_refused"
TEXTS = {
    "tie.py": {
        "return preactivation > 0": (
            "return preactivation >= 0",
            "test_gate_table.py::test_a_tie_is_off",
        )
    },
    "files.py": {"        lock.acquire()": ("        pass", f"{NUMBERS}one_lock_a_file")},
    "gates/table.py": {
        "json.dumps(to_dict(example.graph)).encode()": (
            "b''",
            "test_gate_table.py::test_fingerprint_sees_gates_samples_and_graph",
        ),
        'count=channels, bitorder="little"': (
            'count=channels, bitorder="big"',
            f"{NUMBERS}bits_come_back_and_the_rest_is_zero[7]",
        ),
        "-(-channels // 64) * 64), bool)": (
            "(channels // 64 + 1) * 64), bool)",
            f"{NUMBERS}bits_come_back_and_the_rest_is_zero[64]",
        ),
    },
    "gates/pieces.py": {
        'side="right") - 1': (
            'side="left") - 1',
            f"{NUMBERS}samples_are_read_from_the_pieces_they_are_in",
        ),
        " and self.are_one(first, piece):": (
            ":",
            f"{NUMBERS}samples_are_read_from_the_pieces_they_are_in",
        ),
    },
    "graph/independence.py": {
        "for second in node.inputs[i + 1 :]": (
            "for second in node.inputs[i + 2 :]",
            f"{REFUSED}[h + h]",
        ),
        "if not pa and a.inputs:": (
            "if not pa and a.inputs and pb:",
            f"{REFUSED}[relu(input) + input]",
        ),
        "elif pa and pa == pb:": ("elif False:", f"{REFUSED}[siamese]"),
        "met |= {parameter}": ("met |= set()", f"{REFUSED}[weight twice on a path]"),
    },
    "graph/positions.py": {
        "(axis >= 0) & (axis < n)": ("axis < n", f"{NUMBERS}windows_lie_where_torch_has_them[1]"),
        "np.where(rest == 0, place, OUTSIDE)": (
            "place",
            f"{NUMBERS}windows_lie_where_torch_has_them[2]",
        ),
        "-(-(np.arange(m) + 1) * n // m)": (
            "(np.arange(m) + 1) * n // m",
            f"{NUMBERS}adaptive_windows_lie_where_torch_has_them",
        ),
    },
    "recursion/balance.py": {
        "np.maximum(flat.max(1), -flat.min(1))": (
            "flat.max(1)",
            f"{NUMBERS}powers_of_two_of_samples",
        )
    },
    "gram/tiles.py": {
        "slice(start, min(end, start + side))": (
            "slice(start, start + side)",
            f"{NUMBERS}cuts_cover_all_and_begin_anew",
        ),
        "max(self.least, tiles)": ("min(self.least, tiles)", f"{NUMBERS}memory_of_a_call"),
    },
    "gram/matrix.py": {"mirrored=True)": ("mirrored=False)", f"{NUMBERS}tiles_are_mirrored")},
    "gram/writing.py": {
        "{**options, **digests": (
            '{"scale": engine.options.scale, **digests',
            "test_stores.py::test_a_store_of_other_options_is_not_gone_on_with[bias-ignore]",
        ),
        '"network": sources[0].network,': ("", "test_stores.py::test_stores_of_something_else"),
    },
    "stores/blocks.py": {
        "min(n, first + k)": ("first + k", f"{NUMBERS}chunks_of_an_axis"),
        "bisect.bisect_right(": ("bisect.bisect_left(", f"{NUMBERS}chunks_of_an_axis"),
        "block[0] <= block[1]": ("block[0] < block[1]", f"{NUMBERS}blocks_of_a_symmetric_matrix"),
        "(*names, first + i, *others)": (
            "names",
            f"{NUMBERS}checksums_are_bound_to_store_place_and_values",
        ),
        "zlib.crc32(raw(array), checksum)": (
            "zlib.crc32(raw(array))",
            f"{NUMBERS}checksums_are_bound_to_store_place_and_values",
        ),
    },
    "stores/chunks.py": {
        "checksums != self.blocks.sums(run, arrays)": (
            "checksums != checksums",
            f"{NUMBERS}a_value_that_was_changed_is_noticed",
        ),
        "if self.clears:": ("if False:", f"{NUMBERS}a_checksum_is_written_last"),
    },
    "checks/invariance.py": {
        "(levels.flips > 0) & (levels.flips <= max(1, _ROUNDING * gates_each))": (
            "levels.flips >= 0",
            "test_invariance.py::test_a_list_of_shifts",
        ),
        " & ~left_out.all(1)": (
            "",
            "test_invariance.py::test_samples_within_rounding_show_nothing",
        ),
        "passed = case.holds == case.inside > 0": (
            "passed = case.inside > 0",
            "test_invariance.py::test_a_wrong_prediction_fails",
        ),
    },
}
EDITS = [
    Fault(file, "text", old, new, f"tests/{test}")
    for file, texts in TEXTS.items()
    for old, (new, test) in texts.items()
]
