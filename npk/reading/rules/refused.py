"""Operators that are known and have no paths: what is wrong, and what would be acceptable."""

from typing import Any

from torch import fx

from npk.reading.exported import NUMBER, constant_behind, name_of

REFUSED: dict[str, tuple[str, str]] = {}


def refusal_of(node: fx.Node) -> tuple[str, str] | None:
    """What is wrong with an operator and what to do, if it is known to have no paths."""
    if name_of(node) == "einsum":
        tensors: Any = node.args[1]
        if len(tensors) > 2:
            return (
                "it multiplies more than two tensors"
            ), "Multiply the value by one matrix after the other"
        if any(constant_behind(tensor) is not None for tensor in tensors):
            return ("its letters mix samples, or take a diagonal"), (
                "Keep the letter of the samples first, and each letter once in a tensor"
            )
    if name_of(node) == "batch_norm" and node.args[5]:
        return REFUSED["_native_batch_norm_legit"]
    return None if NUMBER in node.meta else REFUSED.get(name_of(node))


def _refuse(what: str, remedy: str, *names: str) -> None:
    REFUSED.update(dict.fromkeys(names, (what, remedy)))


_refuse(
    "statistics of the sample divide its values, so the output is no sum over paths",
    "Use batch norm in eval mode",
    *(
        "layer_norm native_layer_norm group_norm native_group_norm instance_norm rms_norm "
        "_fused_rms_norm"
    ).split(),
)
_refuse(
    "sums of squares over neighboring channels divide the values, so the output is no sum over "
    "paths",
    "Use batch norm in eval mode",
    "local_response_norm",
)
_refuse(
    "batch norm in train mode depends on the batch",
    "Call net.eval() first, and keep running statistics",
    *("_native_batch_norm_legit", "_native_batch_norm_legit_functional"),
)
_refuse(
    "it multiplies two computed values, as attention does, so the output is no sum over paths",
    "npk reads networks of linear layers, gates, pools, sums and rearrangements; write a product "
    "with a weight as nn.Linear",
    *(
        "scaled_dot_product_attention _scaled_dot_product_flash_attention_for_cpu bmm matmul "
        "mm baddbmm einsum bilinear"
    ).split(),
)
_refuse(
    "softmax couples its inputs, so the output is no sum over paths",
    "Choose the values before it as output: npk.choose_output(net, MODULE), or --output MODULE",
    *("softmax", "_softmax", "log_softmax", "_log_softmax"),
)
_refuse(
    "this nonlinearity is no gate on its input",
    "Use ReLU, leaky ReLU, PReLU, ReLU6, Hardtanh, abs, SiLU, hardswish or GELU",
    *(
        "tanh elu selu celu softplus exp log pow sqrt rsqrt sin cos erf "
        "log_sigmoid_forward logsumexp square softshrink hardshrink"
    ).split(),
)
_refuse(
    "a sigmoid is a gate here and no value",
    "Multiply a value by it; or choose the values before it as output: npk.choose_output(net, "
    "MODULE), or --output MODULE",
    *("sigmoid", "hardsigmoid"),
)
_refuse(
    "the larger of two branches is no gate on either",
    "Add the branches, or pool over them",
    "maximum",
    "minimum",
    "min",
)
_refuse(
    "it interpolates between positions",
    'Use mode="nearest"',
    *(
        "upsample_bilinear2d upsample_linear1d upsample_trilinear3d upsample_bicubic2d "
        "grid_sampler grid_sampler_2d"
    ).split(),
)
_refuse(
    "it chooses between two values by a condition that is not the sign of one of them",
    "Write torch.relu(q), or where(q > 0, q, a * q), for a gate on a value itself; value * (q > 0) "
    "for a gate by another one",
    *("where", "masked_fill", "index_put"),
)
_refuse(
    "it jumps where it passes its threshold",
    "Give it the threshold as its value, so that it is a clamp; or use ReLU",
    "threshold",
)
_refuse(
    "it compares values by something else than > 0 or < 0, or is on at 0, where the gates here are "
    "off",
    "Multiply a value by (q > 0) or by (q < 0)",
    *("ge", "le", "eq", "ne", "lt", "gt", "logical_and", "logical_or", "bitwise_and", "bitwise_or"),
)
_refuse(
    "an embedding takes numbers of words, not values",
    "Feed embedded values to the rest of the network",
    "embedding",
)
_refuse(
    "a recurrent layer uses its weights again and again along a path, so paths hold powers of them",
    "Use a feed-forward network",
    *("lstm", "gru", "rnn_tanh", "rnn_relu"),
)
_refuse(
    "positions of the result depend on the values",
    "Use fixed positions",
    "argmax",
    "topk",
    "sort",
    "gather",
    "nonzero",
    "masked_select",
)
_refuse(
    "complex numbers have no gates",
    "Keep values real",
    "complex",
    "view_as_complex",
    "_fft_r2c",
    "fft_fft",
    "fft_rfft",
)
