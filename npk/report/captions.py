"""What each figure of a page shows and what to see in it, as HTML."""

_GRAY = "Gray: within the tolerance. Hollow dots are cases in which the identity need not hold: they show what the check can see."

CAPTIONS = {
    "accuracy": (
        "<b>Accuracy on the test samples.</b> Circle: the network. Filled square, diamond: kernel machines on its neural path kernel."
        " Hollow: the same machine on the kernel of the same network before training. Dotted lines: models that see the pixels and no"
        " network. A kernel machine level with its network says that the gates alone are enough for the task; the distance from hollow"
        " to filled is what training the gates brought."
    ),
    "kernels": (
        "<b>Kernels, samples sorted by class.</b> Bright: alike. Bright squares on the diagonal are classes whose members are alike;"
        " a bright square off the diagonal is a pair of classes that the kernel confuses. Each panel has its own color scale."
    ),
    "spectra": (
        "<b>Spectra of the kernels</b> (trace one, logarithmic axes). Color: kind of network; dashes: architecture."
        " A steep line means that few directions carry the kernel, a flat one that many do."
    ),
    "overlaps": (
        "<b>Overlap by layer.</b> The share of gates that are on for both of a pair: filled for pairs of one class, hollow for pairs of"
        " different classes. The wider the shaded gap, the better a layer tells classes apart."
    ),
    "training": (
        "<b>Training.</b> Loss on the training samples (logarithmic) and accuracy on the validation samples, which choose the"
        " checkpoint; the test samples are not used."
    ),
    "duality": (
        "<b>Duality.</b> The output of a network against the inner product ⟨φ, v⟩ of path features and path values."
        " Gray: within the tolerance."
    ),
    "invariance": (
        f"<b>Invariance.</b> The kernel of a shifted picture against the kernel of the picture. {_GRAY}"
        " Maps: the deviation at every shift (dy, dx)."
    ),
    "ensemble": (
        "<b>Ensemble.</b> A network with skips is a sum of sub-networks: how much of the kernel comes from sub-networks of each depth,"
        " how much of it passes through each block (one path may pass through several), and whether a formula for the sum gives the"
        f" kernel. {_GRAY}"
    ),
}
