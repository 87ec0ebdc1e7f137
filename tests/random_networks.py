"""Random networks of supported operators: a random walk over layers, each tried on a batch and kept
where it runs.

``choose(options)`` picks one of a list; hypothesis or ``random.Random(seed).choice`` serves.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from npk.networks import gating

MOST_VALUES = 60  # of one layer, a sample
MOST_PATHS = 1500  # to one unit


class RandomNet(nn.Module):
    """Steps in order: each a function of the network and of earlier values."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def forward(self, x):
        values = [x]
        for function, inputs in self.steps:
            values.append(function(self, *[values[i] for i in inputs]))
        return values[-1]

    def extra_repr(self):
        return "\n".join(
            f"{i + 1}: {f.label} of {', '.join(map(str, inputs))}"
            for i, (f, inputs) in enumerate(self.steps)
        )


@dataclass
class Step:
    """A function with a label for messages, and how many times more paths enter a unit through it."""

    label: str
    function: object
    factor: int = 1

    def __call__(self, net, *values):
        return self.function(net, *values)


class Builder:
    """Grows a network layer by layer; ``now`` is the value that the next layer takes."""

    def __init__(self, choose, rank, plain=False):
        self.choose, self.rank, self.plain, self.net = choose, rank, plain, RandomNet().double()
        shape = (choose([1, 2, 3]), *[choose([3, 4, 2]) for _ in range(rank)])
        self.shape, self.values, self.paths, self.now = (
            shape,
            [torch.rand(2, *shape).double()],
            [1],
            0,
        )

    @property
    def value(self):
        return self.values[self.now]

    @property
    def channels(self):
        return self.value.shape[1]

    def kind(self, name):
        """The class of that name for the network's rank: "Conv" is ``nn.Conv2d`` for images."""
        return getattr(nn, f"{name}{self.rank}d")

    def own(self, member):
        """Add a module or parameter and give its name."""
        name = f"layer{len(list(self.net.children())) + len(self.net._parameters)}"
        setattr(
            self.net,
            name,
            member.double()
            if isinstance(member, nn.Module)
            else nn.Parameter(member.data.double()),
        )
        return name

    def layer(self, module, label=None, factor=1):
        """A step through a module of its own."""
        name = self.own(module)
        return Step(label or f"{name} {module}", lambda net, x: getattr(net, name)(x), factor)

    def push(self, step, *inputs):
        """Try a step; keep it where it runs, stays small and leaves a value. Tells whether it was
        kept.
        """
        inputs = inputs or (self.now,)
        paths = step.factor * sum(self.paths[i] for i in inputs)
        try:
            with torch.no_grad():
                result = step(self.net.eval(), *[self.values[i] for i in inputs])
        except (RuntimeError, ValueError):
            return False
        if result[0].numel() == 0 or result[0].numel() > MOST_VALUES or paths > MOST_PATHS:
            return False
        if not result.isfinite().all():  # a window of a max pool that sees padding alone
            return False
        self.net.steps.append((step, inputs))
        self.values.append(result)
        self.paths.append(paths)
        self.now = len(self.values) - 1
        return True

    def sides(self, options):
        return tuple(self.choose(options) for _ in range(self.rank))


def convolution(b, channels=None, same=False):
    """Any convolution; ``same``: one that keeps the grid."""
    groups = b.choose([1, 1, 1, b.channels, 2])
    groups = groups if b.channels % groups == 0 else 1
    out = channels or b.choose([1, 2, 3])
    out = out if out % groups == 0 else groups * b.choose([1, 2])
    if channels and out != channels:
        groups, out = 1, channels
    kernel, kind = b.sides([1, 2, 3] if not same else [1, 3]), b.kind("Conv")
    if same or b.choose([0, 0, 1]):
        mode = b.choose(["zeros", "circular", "zeros", "reflect"]) if b.choose([0, 1]) else "zeros"
        options = {"padding": "same", "dilation": b.sides([1, 2]), "padding_mode": mode}
    else:
        options = {
            "padding": b.sides([0, 1, 2]),
            "stride": b.sides([1, 2]),
            "dilation": b.sides([1, 1, 2]),
        }
    module = kind(b.channels, out, kernel, groups=groups, bias=bool(b.choose([1, 0])), **options)
    return b.layer(module, factor=module.weight[0].numel())


def transposed(b):
    kind = b.kind("ConvTranspose")
    groups, stride = b.choose([1, b.channels]), b.sides([1, 2, 3])
    sides = {
        "output_padding": tuple(b.choose(range(s)) for s in stride),
        "padding": b.sides([0, 1]),
        "dilation": b.sides([1, 1, 2]),
    }
    module = kind(
        b.channels,
        groups * b.choose([1, 2]),
        b.sides([1, 2, 3]),
        stride=stride,
        groups=groups,
        **sides,
    )
    return b.layer(module, factor=b.channels // groups * module.weight[0, 0].numel())


SPELLINGS = {  # of ReLU
    "compare": lambda x: x * (x > 0),
    "compare, as numbers": lambda x: x * (x > 0).to(x.dtype),
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "where not": lambda x: torch.where(x <= 0, torch.zeros_like(x), x),
    "masked": lambda x: x.masked_fill(x < 0, 0.0),
    "clamp": lambda x: x.clamp(min=0),
    "clamp_min": lambda x: torch.clamp_min(x, 0),
    "minus what is below": lambda x: x - x.clamp(max=0),
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "threshold": lambda x: F.threshold(x, 0.0, 0.0),
    "half of the sum": lambda x: 0.5 * (x + x.abs()),
    "in place": lambda x: F.relu_(x.clone()),
    "leaky, by two": lambda x: F.relu(x) - 0.2 * F.relu(-x),
}


def earlier_gate(b):
    """Gates of an earlier value of this shape, hard or soft: what DGNs and DLGNs do."""
    earlier = b.choose([i for i, v in enumerate(b.values) if v.shape == b.value.shape])
    beta = b.choose([1.0, 4.0])
    gates = {
        "compared": lambda q: q > 0,
        "compared, as numbers": lambda q: (q > 0).to(q.dtype),
        "hard": lambda q: gating.gate(q, True, 4.0, 0.1),
        "soft": lambda q: gating.gate(q, False, 4.0, 0.1),
        "sigmoid": lambda q: torch.sigmoid(beta * q),
        "hard sigmoid": F.hardsigmoid,
    }
    name = b.choose(["compared", "compared, as numbers", "hard"] if b.plain else list(gates))
    b.push(
        Step(f"gates of an earlier value, {name}", lambda net, x, q: x * gates[name](q)),
        b.now,
        earlier,
    )


def gate(b):
    spelling = b.choose(list(SPELLINGS))
    if b.plain or b.choose([0, 0, 1]):
        return (
            b.layer(nn.ReLU())
            if b.choose([0, 1])
            else Step(f"ReLU, {spelling}", lambda net, x: SPELLINGS[spelling](x))
        )
    options = [
        nn.ReLU(),
        nn.ReLU(inplace=True),
        nn.LeakyReLU(0.2),
        nn.PReLU(init=0.4),
        nn.PReLU(b.channels),
        nn.ReLU6(),
        nn.SiLU(),
    ]
    options += [nn.ReLU()] * 4 + [
        nn.Hardtanh(-0.3, 0.4),
        nn.Hardtanh(0.0, 0.6),
        nn.Hardswish(),
        nn.GELU(),
        "abs",
        "glu",
        "external",
        "squeeze",
    ]
    chosen = b.choose(options)
    if isinstance(chosen, nn.Module):
        # in place: not on a value that others read too
        copied = Step("a copy", lambda net, x: x.clone())
        return (
            b.layer(chosen)
            if not getattr(chosen, "inplace", False) or b.push(copied)
            else b.layer(nn.ReLU())
        )
    if chosen in ("external", "squeeze"):
        kind = b.kind("Conv")(b.channels, b.channels, 1)
        name, axes, sigmoid = (
            b.own(kind),
            tuple(range(2, 2 + b.rank)),
            b.choose([torch.sigmoid, F.hardsigmoid]),
        )
        if chosen == "squeeze":
            return Step(
                chosen, lambda net, x: x * sigmoid(getattr(net, name)(x.mean(axes, keepdim=True)))
            )
        return Step(chosen, lambda net, x: x * sigmoid(getattr(net, name)(x)))
    functions = {"abs": torch.abs, "glu": lambda x: F.glu(x, 1)}
    return Step(chosen, lambda net, x: functions[chosen](x))


def pool(b):
    window = {
        "kernel_size": b.sides([1, 2, 3]),
        "stride": b.sides([1, 2]),
        "padding": b.choose([0, 0, 1]),
        "ceil_mode": bool(b.choose([0, 1])),
    }
    factor = 9
    match b.choose(["max", "average", "adaptive average", "adaptive max", "mean"]):
        case "max":
            module = b.kind("MaxPool")(dilation=b.sides([1, 1, 2]), **window)
        case "average":
            module = b.kind("AvgPool")(count_include_pad=bool(b.choose([0, 1])), **window)
        case "adaptive average":
            module = b.kind("AdaptiveAvgPool")(b.sides([1, 2, 3]))
        case "adaptive max":
            module = b.kind("AdaptiveMaxPool")(b.sides([1, 2, 3]))
        case _:
            take = b.choose([torch.mean, torch.sum, torch.amax])
            return Step(
                f"{take.__name__} of the last axis",
                lambda net, x: take(x, -1, keepdim=True),
                b.value.shape[-1],
            )
    return b.layer(module, factor=factor)


def norm(b):
    return b.layer(b.kind("BatchNorm")(b.channels, affine=bool(b.choose([1, 1, 0]))))


def scale(b):
    c = b.choose([0.5, -1.5])
    column = (b.channels, *[1] * b.rank)
    one, many = (b.own(torch.ones(shape)) for shape in ((), column))
    b.net.register_buffer(held := f"held{len(b.net._buffers)}", torch.ones(column).double())
    return b.choose(
        [
            Step(f"times {c}", lambda net, x: c * x),
            Step("negated", lambda net, x: -x),
            Step("over 3", lambda net, x: x / 3),
            Step("times a parameter", lambda net, x: x * getattr(net, one)),
            Step("times a parameter of channels", lambda net, x: getattr(net, many) * x),
            Step("times a buffer", lambda net, x: x * getattr(net, held)),
            Step("over a buffer", lambda net, x: x / getattr(net, held)),
            Step("plus a buffer", lambda net, x: x + getattr(net, held)),
            Step("minus a parameter", lambda net, x: x - getattr(net, many)),
            Step(f"plus {c}", lambda net, x: x + c),
            Step(f"minus {c}", lambda net, x: x - c),
            Step("dropout", lambda net, x: F.dropout(x, 0.5, net.training)),
        ]
    )


def rearrange(b):
    """Cuts, copies and permutations of channels and positions."""
    c, rank = b.channels, b.rank
    widths = [b.choose([0, 1, -1, 2]) for _ in range(2 * rank)]
    groups, size = b.choose([g for g in (1, 2, 3, 4) if c % g == 0]), b.sides([1, 2, 3, 5])
    mode = b.choose(["constant", "circular", "replicate"])
    options = [
        Step("channels from 1", lambda net, x: x[:, 1:]),
        Step("every second position", lambda net, x: x[..., ::2]),
        Step("first half", lambda net, x: x.chunk(2, 1)[0]),
        Step("split off one", lambda net, x: torch.split(x, [1, c - 1], 1)[1]),
        Step(
            f"shuffle {groups}",
            lambda net, x: x.unflatten(1, (groups, c // groups)).transpose(1, 2).flatten(1, 2),
        ),
        Step(f"pad {widths}", lambda net, x: F.pad(x, widths)),
        Step(f"pad {mode}", lambda net, x: F.pad(x, [1] * (2 * rank), mode=mode)),
        Step("pad channels", lambda net, x: F.pad(x, [0, 0] * rank + [1, 0])),
        Step("upsampled", lambda net, x: F.interpolate(x, scale_factor=2)),
        Step(f"sized {size}", lambda net, x: F.interpolate(x, size=size)),
        Step("last axis first", lambda net, x: x.transpose(1, -1)),
        Step("twice the channels", lambda net, x: x.repeat(1, 2, *[1] * rank)),
        Step("one channel expanded", lambda net, x: x[:, :1].expand(-1, 2, *[-1] * rank)),
        Step("a channel picked", lambda net, x: x[:, [c - 1, 0]]),
        Step("flipped", lambda net, x: x.flip(-1)),
        Step("rolled", lambda net, x: x.roll(1, -1)),
        Step("channels repeated", lambda net, x: x.repeat_interleave(2, 1)),
        Step("stacked with its negative", lambda net, x: torch.stack([x, -x], 2).flatten(1, 2)),
        Step("without the first position", lambda net, x: x.narrow(-1, 1, x.shape[-1] - 1)),
    ]
    images = [
        Step("pixel shuffle", lambda net, x: F.pixel_shuffle(x, 2)),
        Step("pixel unshuffle", lambda net, x: F.pixel_unshuffle(x, 2)),
        Step("axes exchanged", lambda net, x: x.transpose(2, 3)),
    ]
    return b.choose(options + (images if rank > 1 else []))


def join(b):
    """A second branch from an earlier value through a convolution of its own, then a sum,
    difference or concatenation.
    """
    grid, target = b.value.shape[2:], b.now
    earlier = b.choose([i for i, v in enumerate(b.values) if v.shape[2:] == grid])
    joins = {
        "sum": lambda net, x, y: x + y,
        "difference": lambda net, x, y: x - 0.5 * y,
        "concatenation": lambda net, x, y: torch.cat([x, y], 1),
        "concatenation of positions": lambda net, x, y: torch.cat([x, y], 2),
        "direct concatenation": lambda net, x, y: torch.cat([y, x], 1),
        "direct sum": lambda net, x, y: y + x,
    }
    kind = b.choose(["sum"] * 6 + ["difference", "concatenation", "concatenation"] + list(joins))
    if not kind.startswith("direct"):
        channels, b.now = b.channels if kind != "concatenation" else None, earlier
        kept = b.push(convolution(b, channels, same=True))
        if kept and b.choose([0, 1]) and not b.push(gate(b)):
            kept = True
        earlier, b.now = (b.now if kept else earlier), target
        if not kept:
            return
    if kind.startswith("direct") or b.values[earlier].shape[2:] == grid:
        b.push(Step(kind, joins[kind]), target, earlier)


def tied(b):
    """A convolution of the network once more."""
    names = [
        n
        for n, m in b.net.named_children()
        if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d) and m.in_channels == b.channels
    ]
    if not names:
        return convolution(b)
    name = b.choose(names)
    return Step(
        f"{name} again",
        lambda net, x: getattr(net, name)(x),
        getattr(b.net, name).weight[0].numel(),
    )


def matrix(b):
    """A product of the last axis with a matrix, however it is written."""
    inside, out = b.value.shape[-1], b.choose([1, 2, 3])
    rows, cols = b.own(torch.ones(out, inside)), b.own(torch.ones(inside, out))
    return b.choose(
        [
            Step("last axis, linear", lambda net, x: F.linear(x, getattr(net, rows)), inside),
            Step("last axis @ W", lambda net, x: x @ getattr(net, cols), inside),
            Step("last axis @ W.T", lambda net, x: x @ getattr(net, rows).T, inside),
            Step("last axis, turned W", lambda net, x: F.linear(x, getattr(net, cols).t()), inside),
            Step(
                "last axis, einsum",
                lambda net, x: torch.einsum("...i,io->...o", x, getattr(net, cols)),
                inside,
            ),
        ]
    )


STEPS = (
    [convolution] * 6
    + [transposed]
    + [gate] * 6
    + [pool] * 2
    + [norm, scale, scale]
    + [rearrange] * 4
    + [matrix]
)
RARE = [tied, *STEPS]


def head(b):
    kind = b.choose(["flat", "pool", "pool", "deep", "none", "flattened", "gated"])
    if kind == "none":
        return
    if kind == "gated":
        b.push(convolution(b, 2, same=True))
        b.push(b.layer(nn.ReLU()))
        b.push(Step("global pool", lambda net, x: x.flatten(2).mean(2), b.value[0, 0].numel()))
        return
    flat = (lambda net, x: x.flatten(2).mean(2)) if kind == "pool" else lambda net, x: x.flatten(1)
    b.push(
        Step(
            "flatten" if kind != "pool" else "global pool",
            flat,
            b.value[0, 0].numel() if kind == "pool" else 1,
        )
    )
    if kind == "deep" and b.push(b.layer(nn.Linear(b.channels, 2), factor=b.channels)):
        b.push(b.layer(nn.ReLU()))
    if kind != "flattened" and b.value.dim() == 2:
        b.push(b.layer(nn.Linear(b.channels, b.choose([1, 2])), factor=b.channels))


def random_network(choose, *, least=1, plain=False):
    """A network in eval mode, and the shape of a sample.

    ``least``: of operators; ``plain``: hard gates at 0 alone, which are the same in every type of
    number.
    """
    b, most = Builder(choose, choose([2, 2, 2, 1, 1, 3]), plain), choose([3, 5, 8, 12])
    if choose(range(8)) == 0:
        b.push(Step("ones", lambda net, x: torch.ones_like(x)))
    tries = 0
    while tries < most or (len(b.net.steps) < least and tries < 100):
        tries += 1
        kind = choose([0, 0, 0, 0, 0, 0, 1, 1, 2])
        if kind == 1 and b.now:
            join(b)
        elif kind == 2 and b.now:
            earlier_gate(b)
        else:
            b.push(choose(STEPS if choose(range(12)) else RARE)(b))
    head(b)
    # npk takes the type of numbers from a parameter
    if not any(p.is_floating_point() for p in b.net.parameters()):
        b.now = 0
        b.push(convolution(b))
    return b.net.eval(), b.shape


def turns_channels_into_positions(net):
    """Whether what a channel is depends on where one looks."""
    moving = ("last axis first", "pixel shuffle", "pixel unshuffle")
    return any(step.label in moving or step.label.startswith("last axis") for step, _ in net.steps)


def randomize(net, rng):
    """Weights and statistics drawn, of a size that keeps values near 1."""
    for name, tensor in net.state_dict().items():
        if tensor.dtype.is_floating_point:
            fan_in = tensor[0].numel() if tensor.dim() > 1 else 1
            drawn = torch.as_tensor(rng.uniform(-1.5, 1.5, tuple(tensor.shape))) / fan_in**0.5
            tensor.copy_(
                drawn.abs() + 0.3 if name.endswith("running_var") or "held" in name else drawn
            )
