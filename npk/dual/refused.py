"""Operators that are known and have no paths: what is wrong with each, and what would make it acceptable."""

from torch import fx

from npk.dual.exported import name_of
from npk.dual.index_operators import constant_behind

REFUSED: dict[str, tuple[str, str]] = {}


def refusal_of(node: fx.Node) -> tuple[str, str] | None:
    """What is wrong with an operator and what to do, if it is known to have no paths."""
    name = name_of(node)
    held = name in ("matmul", "mm") and (weight := constant_behind(node.args[1])) and weight.meta["val"].dim() == 2
    return None if held else REFUSED.get(name)


def _refuse(what: str, remedy: str, *names: str) -> None:
    REFUSED.update(dict.fromkeys(names, (what, remedy)))


_refuse(
    "statistics of the sample divide its values, so the output is no sum over paths",
    "Use batch norm in eval mode",
    *("layer_norm", "native_layer_norm", "group_norm", "native_group_norm", "instance_norm", "rms_norm", "_fused_rms_norm"),
)
_refuse(
    "batch norm in train mode depends on the batch",
    "Call net.eval() first, and keep running statistics",
    *("_native_batch_norm_legit", "_native_batch_norm_legit_functional"),
)
_refuse(
    "it multiplies two computed values, as attention does, so the output is no sum over paths",
    "npk reads networks of linear layers, gates, pools, sums and rearrangements; write a product with a weight as nn.Linear",
    *(
        "scaled_dot_product_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
        "bmm",
        "matmul",
        "mm",
        "baddbmm",
        "einsum",
        "bilinear",
    ),
)
_refuse(
    "softmax couples its inputs, so the output is no sum over paths",
    "Choose the values before it as output: npk.choose_output(net, MODULE), or --output MODULE",
    *("softmax", "_softmax", "log_softmax", "_log_softmax"),
)
_refuse(
    "this nonlinearity is no gate on its input",
    "Use ReLU, leaky ReLU, PReLU, ReLU6, Hardtanh, abs, SiLU, hardswish or GELU",
    *("tanh", "elu", "selu", "celu", "softplus", "mish", "exp", "log", "pow", "sqrt", "rsqrt", "sin", "cos", "erf", "log_sigmoid_forward"),
)
_refuse(
    "a sigmoid is a gate here and no value",
    "Multiply a value by it; or choose the values before it as output: npk.choose_output(net, MODULE), or --output MODULE",
    *("sigmoid", "hardsigmoid"),
)
_refuse("the larger of two branches is no gate on either", "Add the branches, or pool over them", "maximum", "minimum", "min")
_refuse(
    "it interpolates between positions",
    'Use mode="nearest"',
    *("upsample_bilinear2d", "upsample_linear1d", "upsample_trilinear3d", "upsample_bicubic2d", "grid_sampler", "grid_sampler_2d"),
)
_refuse("an embedding takes numbers of words, not values", "Feed embedded values to the rest of the network", "embedding")
_refuse(
    "a recurrent layer uses its weights again and again along a path, so paths hold powers of them",
    "Use a feed-forward network",
    *("lstm", "gru", "rnn_tanh", "rnn_relu"),
)
_refuse(
    "positions of the result depend on the values", "Use fixed positions", "argmax", "topk", "sort", "gather", "nonzero", "masked_select"
)
_refuse("complex numbers have no gates", "Keep values real", "complex", "view_as_complex", "_fft_r2c", "fft_fft", "fft_rfft")
