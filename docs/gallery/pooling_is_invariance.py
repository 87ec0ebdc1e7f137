"""Why pooling is invariance: how far each circular shift moves the kernel of a network that ends with
a global average pool, and of one that flattens. Dots mark shifts that structure promises to ignore.
"""

from pathlib import Path

import npk
from npk.report.invariance_figures import maps
from npk.report.style import house_style

HERE = Path(__file__).parent

X = npk.data.load("digits[:3]").X
cases = []
for readout, pools in (("gap", "pooled"), ("flatten", "flattened")):
    net = npk.networks.build(
        "conv", input_shape=(1, 8, 8), classes=10, channels=[8, 8], readout=readout, seed=0
    )
    check = npk.check_invariance(net, X, "all", name=pools)
    cases += check.details.cases
    print(pools, check.details.cases[0].summary)
with house_style():
    maps(cases, across=2).savefig(HERE / "pooling_is_invariance.png", dpi=130)
