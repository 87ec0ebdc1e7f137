"""ONNX operators as functions of torch, one rule a line where that is enough; those that gate are
in ``gates``.

A rule takes the node's attributes and then its inputs; an input that is left out is None. Weights
and whatever is computed from a sample are tensors. Numbers known while loading (shapes, axes,
limits) are NumPy arrays.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from npk.checkpoint.onnx.gates import GATES
from npk.checkpoint.onnx.values import (
    Attributes,
    Tensor,
    elementwise,
    given,
    number,
    numbers,
    one,
    tensor,
)

# windows


def _window(
    a: Attributes, x: Tensor, kernel: Sequence[int]
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Strides, dilations, and cells to pad at the beginning and at the end of each axis."""
    rank, auto = len(kernel), a.get("auto_pad", "NOTSET")
    strides = a.get("strides", [1] * rank)
    dilations = a.get("dilations", [1] * rank)
    pads = a.get("pads", [0] * 2 * rank)
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        sides = zip(x.shape[2:], kernel, strides, dilations, strict=True)
        totals = [max(0, (math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n) for n, k, s, d in sides]
        less = [total // 2 for total in totals]
        more = [total - half for total, half in zip(totals, less, strict=True)]
        if auto == "SAME_UPPER":
            return strides, dilations, less, more
        return strides, dilations, more, less
    return strides, dilations, list(pads[:rank]), list(pads[rank:])


def _padded(
    x: Tensor, begin: Sequence[int], end: Sequence[int], mode: str = "constant", value: float = 0.0
) -> Tensor:
    """Pad the last axes, as many as there are numbers."""
    flat = [side for pair in zip(reversed(begin), reversed(end), strict=True) for side in pair]
    return (
        F.pad(x, flat, mode=mode, value=value) if mode == "constant" else F.pad(x, flat, mode=mode)
    )


def _even(
    x: Tensor, begin: list[int], end: list[int], value: float = 0.0
) -> tuple[Tensor, list[int]]:
    """Padding that is the same on both sides stays with the window; other is done before it."""
    return (x, begin) if begin == end else (_padded(x, begin, end, value=value), [0] * len(begin))


def _conv(a: Attributes, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    strides, dilations, begin, end = _window(a, x, w.shape[2:])
    x, padding = _even(x, begin, end)
    return (F.conv1d, F.conv2d, F.conv3d)[w.dim() - 3](
        x, w, b, strides, padding, dilations, a.get("group", 1)
    )


def _conv_transpose(a: Attributes, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    strides, dilations, begin, end = _window({**a, "auto_pad": "NOTSET"}, x, w.shape[2:])
    if (
        a.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        or "output_shape" in a
        or begin != end
    ):
        raise NotImplementedError("a ConvTranspose with auto_pad, output_shape or uneven pads")
    extra = a.get("output_padding", [0] * len(strides))
    function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[w.dim() - 3]
    return function(x, w, b, strides, begin, extra, a.get("group", 1), dilations)


def _rounds_up(a: Attributes, x: Tensor, *window: list[int]) -> bool:
    """Whether more padding at the end than at the beginning is what torch's ``ceil_mode`` does: a
    last window that leaves the image.
    """
    if a.get("ceil_mode", 0):
        return False
    sides = zip(x.shape[2:], *window, strict=True)
    rests = [
        (n + b + e - (k - 1) * d - 1, n + 2 * b - (k - 1) * d - 1, s, e >= b)
        for n, k, s, d, b, e in sides
    ]
    return all(more and there // s == -(-here // s) for there, here, s, more in rests)


AVERAGE_POOLS: tuple[Callable[..., Tensor], ...] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)


def _pool(
    a: Attributes, x: Tensor, value: float, counted: bool = False
) -> tuple[Tensor, list[Any], list[int]]:
    """The padded value, the window (kernel, strides, padding, ceil_mode), and the dilations."""
    kernel = a["kernel_shape"]
    strides, dilations, begin, end = _window(a, x, kernel)
    if begin != end and not counted:
        if _rounds_up(a, x, kernel, strides, dilations, begin, end):
            return x, [kernel, strides, begin, True], dilations
        if value == 0:
            raise NotImplementedError("an AveragePool with uneven pads that are not counted")
    x, padding = _even(x, begin, end, value)
    return x, [kernel, strides, padding, bool(a.get("ceil_mode", 0))], dilations


def _max_pool(a: Attributes, x: Tensor) -> Tensor:
    x, (kernel, strides, padding, up), dilations = _pool(a, x, -math.inf)
    return (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(kernel) - 1](
        x, kernel, strides, padding, dilations, up
    )


def _average_pool(a: Attributes, x: Tensor) -> Tensor:
    counted, kernel = bool(a.get("count_include_pad", 0)), a["kernel_shape"]
    begin, end = _window(a, x, kernel)[2:]
    if not counted and all(
        k == n + b + e for n, k, b, e in zip(x.shape[2:], kernel, begin, end, strict=True)
    ):
        # one window over all there is; torch refuses windows larger than the image
        return _global_average(a, x)
    x, window, dilations = _pool(a, x, 0.0, counted)
    if set(dilations) != {1}:
        raise NotImplementedError("an AveragePool with dilations")
    return AVERAGE_POOLS[len(window[0]) - 1](x, *window, counted)


def _global_average(a: Attributes, x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


def _global_max(a: Attributes, x: Tensor) -> Tensor:
    return _max_pool({"kernel_shape": list(x.shape[2:]), "strides": list(x.shape[2:])}, x)


# weights


def _gemm(a: Attributes, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """The reader has transposed and scaled a constant w; only then ``linear`` is set."""
    if a.get("linear"):
        return F.linear(x, w, b)
    product = (
        (x.mT if a.get("transA") else x) @ (w.mT if a.get("transB") else w) * a.get("alpha", 1.0)
    )
    return product if b is None else product + a.get("beta", 1.0) * b


def _batch_norm(
    a: Attributes, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor
) -> Tensor:
    if a.get("training_mode", 0):
        raise NotImplementedError("a BatchNormalization in training mode")
    return F.batch_norm(x, mean, var, weight, bias, False, 0.0, a.get("epsilon", 1e-5))


# functions of one value


def _softmax(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def rule(a: Attributes, x: Tensor) -> Tensor:
        if a["opset"] >= 13:
            return function(x, a.get("axis", -1))
        axis = a.get("axis", 1) % x.dim()  # before: over all axes from this one on
        if axis < x.dim() - 1:
            return function(x.flatten(axis), -1).reshape(x.shape)
        return function(x, axis)

    return rule


# shapes


def _reshape(a: Attributes, x: Tensor, shape: Any = None) -> Tensor:
    sizes = given(a, "shape", shape) or []
    if not a.get("allowzero", 0):
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    if sizes and isinstance(sizes[0], int) and sizes[0] == a["batch"]:
        sizes[0] = x.shape[0]  # the file was made for one batch size
        if -1 not in sizes[1:] and math.prod(sizes[1:]) != math.prod(x.shape[1:]):
            raise NotImplementedError("a Reshape that joins the batch with other axes")
    return x.reshape(sizes)


def _flatten(a: Attributes, x: Tensor) -> Tensor:
    axis = a.get("axis", 1) % (x.dim() + 1)
    return x.flatten(1) if axis == 1 else x.reshape(math.prod(x.shape[:axis]), -1)


def _squeeze(a: Attributes, x: Tensor, axes: Any = None) -> Tensor:
    axes = given(a, "axes", axes)
    return x.squeeze(
        tuple(
            axes if axes is not None else [i for i, side in enumerate(x.shape) if i and side == 1]
        )
    )


def _unsqueeze(a: Attributes, x: Tensor, axes: Any = None) -> Tensor:
    axes = given(a, "axes", axes) or []
    for axis in sorted(axis % (x.dim() + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _slice(
    a: Attributes,
    x: Tensor,
    starts: Any = None,
    ends: Any = None,
    axes: Any = None,
    steps: Any = None,
) -> Tensor:
    starts, ends = given(a, "starts", starts) or [], given(a, "ends", ends) or []
    axes = given(a, "axes", axes) or list(range(len(starts)))
    for start, end, axis, step in zip(
        starts, ends, axes, numbers(steps) if steps is not None else [1] * len(starts), strict=True
    ):
        if step < 0:
            raise NotImplementedError("a Slice with a negative step")
        cut = [slice(None)] * x.dim()
        cut[axis] = slice(start, None if isinstance(end, int) and end > 2**31 - 2 else end, step)
        x = x[tuple(cut)]
    return x


def _split(a: Attributes, x: Tensor, parts: Any = None) -> tuple[Tensor, ...]:
    axis, sizes = a.get("axis", 0), given(a, "split", parts)
    return x.split(sizes if sizes is not None else math.ceil(x.shape[axis] / a["outputs"]), axis)


def _pad(a: Attributes, x: Tensor, pads: Any = None, value: Any = None, axes: Any = None) -> Tensor:
    amounts, mode = given(a, "pads", pads) or [], a.get("mode", "constant")
    places = (
        [axis % x.dim() for axis in numbers(axes)] if axes is not None else list(range(x.dim()))
    )
    before, after = [0] * x.dim(), [0] * x.dim()
    for i, axis in enumerate(places):
        before[axis], after[axis] = amounts[i], amounts[i + len(places)]
    first = next((i for i in range(x.dim()) if before[i] or after[i]), x.dim())
    if first == x.dim():
        return x
    kind = str({"edge": "replicate", "wrap": "circular"}.get(mode, mode))
    return _padded(
        x, before[min(first, 2) :], after[min(first, 2) :], kind, number(a, "value", value, 0.0)
    )


def _resize(a: Attributes, x: Tensor, *rest: Any) -> Tensor:
    """Nearest neighbors by a whole factor; what else there is, is not followed."""
    scales = a.get("scales") or next(
        (
            r
            for r in rest[-2:]
            if r is not None and np.asarray(r).dtype.kind == "f" and np.size(r) == x.dim()
        ),
        None,
    )
    sizes = rest[2] if len(rest) > 2 else None
    if scales is not None:
        factors = numbers(np.asarray(scales))
    else:
        factors = [n / x.shape[i] if i else 1 for i, n in enumerate(numbers(sizes))]
    whole = all(float(factor).is_integer() for factor in factors[1:]) and list(factors[:2]) == [
        1,
        1,
    ]
    if a.get("mode", "nearest") != "nearest" or not whole or "axes" in a:
        raise NotImplementedError(f"a Resize in mode {a.get('mode', 'nearest')} by {factors}")
    return F.interpolate(x, scale_factor=[float(factor) for factor in factors[2:]], mode="nearest")


def _depth_to_space(a: Attributes, x: Tensor) -> Tensor:
    block = a["blocksize"]
    if a.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    n, channels, height, width = x.shape
    parts = x.reshape(n, block, block, channels // block**2, height, width).permute(
        0, 3, 4, 1, 5, 2
    )
    return parts.reshape(n, channels // block**2, height * block, width * block)


def _reduce(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def rule(a: Attributes, x: Tensor, axes: Any = None) -> Tensor:
        reduced = given(a, "axes", axes)
        if not reduced and a.get("noop_with_empty_axes", 0):
            return x
        return function(x, tuple(reduced or range(x.dim())), bool(a.get("keepdims", 1)))

    return rule


def _gather(a: Attributes, x: Tensor, indices: Any) -> Tensor:
    axis = a.get("axis", 0)
    if np.ndim(indices) == 0 and not isinstance(indices, Tensor):
        return x.select(axis, int(indices))
    flat = torch.as_tensor(
        np.array(indices) if not isinstance(indices, Tensor) else indices, device=x.device
    )
    flat = torch.where(flat < 0, flat + x.shape[axis], flat)
    return x.index_select(axis, flat.reshape(-1)).reshape(
        *x.shape[:axis], *flat.shape, *x.shape[axis % x.dim() + 1 :]
    )


RULES: dict[str, Callable[..., Any]] = {
    **GATES,
    "Add": elementwise(lambda x, y: x + y),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Concat": lambda a, *xs: torch.cat(
        [tensor(x, next(y for y in xs if isinstance(y, Tensor))) for x in xs], a["axis"]
    ),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "Div": elementwise(lambda x, y: x / y),
    "Dropout": lambda a, x, *_: x,
    "Erf": one(torch.erf),
    "Exp": one(torch.exp),
    "Expand": lambda a, x, shape: x * torch.ones(numbers(shape), dtype=x.dtype, device=x.device),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "Identity": lambda a, x: x,
    "InstanceNormalization": lambda a, x, w, b: F.instance_norm(
        x, weight=w, bias=b, eps=a.get("epsilon", 1e-5)
    ),
    "LRN": lambda a, x: F.local_response_norm(
        x, a["size"], a.get("alpha", 1e-4), a.get("beta", 0.75), a.get("bias", 1.0)
    ),
    "Log": one(torch.log),
    "LogSoftmax": _softmax(F.log_softmax),
    "MatMul": lambda a, x, y: F.linear(x, y) if a.get("linear") else x @ y,
    "MaxPool": _max_pool,
    "Mul": elementwise(lambda x, y: x * y),
    "Neg": one(torch.neg),
    "Pad": _pad,
    "Pow": elementwise(lambda x, y: x**y),
    "Reciprocal": one(torch.reciprocal),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "ReduceSum": _reduce(torch.sum),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": lambda a, x: np.array(x.shape[a.get("start", 0) : a.get("end")], dtype=object),
    "Sign": one(torch.sign),
    "Slice": _slice,
    "Softsign": one(F.softsign),
    "Softmax": _softmax(F.softmax),
    "Split": _split,
    "Sqrt": one(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": elementwise(lambda x, y: x - y),
    "Sum": elementwise(lambda x, y: x + y),
    "Tanh": one(torch.tanh),
    "Transpose": lambda a, x: x.permute(a.get("perm", list(range(x.dim()))[::-1])),
    "Unsqueeze": _unsqueeze,
    "Upsample": _resize,
}
