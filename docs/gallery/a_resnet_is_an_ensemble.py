"""The depth spectrum of 54 blocks in one pass: which sub-networks a residual network is made of.

With the gate behind the addition, as in He et al.'s networks, the stream itself is gated.
"""

from pathlib import Path

import npk
from npk.report.style import house_style

HERE = Path(__file__).parent

X = npk.data.load("digits[:64]").X
spectra = {}
for skip in ("ungated", "gated"):
    net = npk.networks.build(
        "residual", input_shape=(1, 8, 8), classes=10, flavor="fc", widths=[32] * 54, skip=skip,
        bias=False, seed=0,
    )  # fmt: skip
    spectra[f"{skip} skips:"] = npk.depth_spectrum(net, X)
with house_style():
    ax = npk.plot.depth_spectrum(spectra)
    ax.figure.savefig(HERE / "a_resnet_is_an_ensemble.png", dpi=110)
for name, found in spectra.items():
    print(name, f"mean {found.path_length[found.live].mean():.1f} of {found.depths[-1]} layers")
