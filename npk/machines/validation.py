"""Samples and targets as scikit-learn checks them, with errors that are npk's."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from npk.errors import DataError, DataTypeError, NpkError
from npk.samples import as_array


def validated(estimator: BaseEstimator, X: Any, *y: Any, **checks: bool) -> Any:
    """Check what came.

    Args:
        estimator: which learns from it, or predicts.
        X: samples as rows.
        *y: targets, if there are any.
        **checks: of scikit-learn's ``validate_data``.

    Returns:
        The samples, and targets if any, as arrays.

    Raises:
        NpkError: of npk's own that was raised on the way.
        DataTypeError: samples of a type that has no numbers.
        DataError: what scikit-learn refuses otherwise.
    """
    y = tuple(as_array(each, "y") if hasattr(each, "detach") else each for each in y)
    try:
        return validate_data(estimator, X, *y, dtype=(np.float32, np.float64), **checks)
    except NpkError:
        raise
    except TypeError as error:
        raise DataTypeError(" ".join(str(error).split())) from error
    except ValueError as error:
        raise DataError(" ".join(str(error).split())) from error
