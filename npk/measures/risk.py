r"""What a kernel is worth for given targets: nu, and the risk of ridge regression predicted from the
training samples alone.

A ridge is in units of the kernel's mean diagonal, here as in :mod:`npk.machines.ridge`: it means
the same at every scale of the kernel.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from npk.gram.matrix import Gram
from npk.machines import ridge as machine
from npk.machines.problem import checked_alpha, checked_targets, mean_diagonal
from npk.measures.given import Floats, are_labels, labels_of, targets_of
from npk.measures.matrices import checked_kernel
from npk.shown import Shown


@dataclass(frozen=True, eq=False)
class RiskCurve(Shown):
    """Predicted risk of ridge machines, one for each ridge.

    ``leave_one_out``: mean squared error of each sample under the machine fitted to all others.
    ``gcv``: generalized cross-validation. ``accuracy``: share of the samples whose class the
    machine fitted to all others finds; ``None`` for targets that are no classes.
    """

    samples: int
    ridges: Floats  # in units of the mean diagonal, (r,)
    leave_one_out: Floats  # (r,)
    gcv: Floats  # (r,)
    accuracy: Floats | None  # (r,)
    chosen: int  # place of the best: the most accurate of classes, else the least squared error

    @property
    def kare(self) -> Floats:
        """KARE (Jacot and others, NeurIPS 2020), of the ridge / n: the same numbers as ``gcv``."""
        return self.gcv

    @property
    def best_accuracy(self) -> float | None:
        """Leave-one-out accuracy of the machine that is chosen."""
        return None if self.accuracy is None else float(self.accuracy[self.chosen])

    @property
    def accuracy_error(self) -> Floats | None:
        """Standard error of the accuracy over samples, that of a share of so many."""
        share = self.accuracy
        return None if share is None else np.sqrt(share * (1 - share) / self.samples)


def nu(K: ArrayLike | Gram, y: ArrayLike, ridge: float) -> float:
    r"""How much of a function of norm 1 the targets would take: large where they lie in directions
    that the kernel hardly has.

    .. math:: \frac 1n\, y^\top \Big(\frac{n}{\operatorname{tr} K} K + \lambda I\Big)^{-1} y

    Args:
        K: kernel of the samples with themselves, (n, n), an array or a Gram.
        y: targets: floats, or -1 and +1, (n,); several columns, (n, outputs), whose values are
            added; or classes, (n,), which get a column each (one-hot).
        ridge: lambda, a number >= 0: say it wherever you show nu.

    Returns:
        At most the mean square of y over the ridge. It follows the spectrum of K: compare it inside
        one network, not between networks.

    Raises:
        ShapeError: K is not square and symmetric, or y is of another number of samples.
        DataError: K is zero or not finite, or K + ridge is not positive definite; y is not finite,
            or of one class.
        OptionError: the ridge is no number >= 0.

    References:
        Arora, Du, Hu, Li and Wang, *Fine-grained analysis of optimization and generalization for
        overparameterized two-layer neural networks*, ICML 2019.
    """
    ridge, kernel = checked_alpha(ridge), checked_kernel(K)
    targets = targets_of(y, len(kernel))
    solved = machine.fit(K, targets, alpha=ridge).solution.coefficients
    unit = mean_diagonal(np.asarray(kernel.diagonal()))
    return float(unit * np.sum(targets * solved) / len(targets))


def predicted_risk(
    K: ArrayLike | Gram, y: ArrayLike, ridges: Sequence[float] = machine.ALPHAS
) -> RiskCurve:
    r"""Leave-one-out error and accuracy, GCV and KARE of ridge regression, for many ridges by one
    eigendecomposition.

    .. math::

        \mathrm{LOO} = \frac 1n \sum_i \Big( \frac{c_i}{A_{ii}} \Big)^2, \qquad
        \mathrm{GCV} = \mathrm{KARE} = \frac{n\, \|c\|^2}{(\operatorname{tr} A)^2}, \qquad
        A = (K + \lambda I)^{-1}, \quad c = A y

    Args:
        K: kernel of the samples with themselves, (n, n), an array or a Gram, which is read whole.
        y: class of each sample, (n,), whole numbers or text, which become targets -1 and +1; or
            targets, floats, (n,) or (n, outputs), of whose columns errors are the mean.
        ridges: in units of the mean diagonal of K. Those below the rounding of K are left out.

    Returns:
        The curve. It says what to expect of **fresh** samples only if no weight of the network has
        seen these.

    Raises:
        ShapeError: K is not square and symmetric, or y is of another number of samples.
        DataError: K is zero, not finite or not positive semidefinite; y is not finite, or of one
            class.
        OptionError: no ridge is above the rounding of K, or one is no number >= 0.

    References:
        Golub, Heath and Wahba, *Generalized cross-validation as a method for choosing a good ridge
        parameter*, 1979. Jacot, Şimşek, Spadaro, Hongler and Gabriel, *Kernel alignment risk
        estimator*, NeurIPS 2020.
    """
    classes = are_labels(y)
    n = len(checked_kernel(K))
    targets = machine.signed_targets(labels_of(y, n)[1])[0] if classes else checked_targets(y, n)
    factored = machine.factor(K)
    criterion = "accuracy" if classes else "squared error"
    found = machine.choose_alpha(factored, targets, ridges, criterion=criterion)
    chosen = int(np.flatnonzero(found.alphas == found.alpha)[0])
    return RiskCurve(n, found.alphas, found.squared_error, found.gcv, found.accuracy, chosen)
