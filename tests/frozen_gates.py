"""An oracle that knows nothing of npk's graph: the torch module itself, run with its gates frozen.

A torch-function mode records every gate of a run, and puts it in the place of the gate in later
runs. Under frozen gates the output is affine in the parameters of each layer, so its Taylor
coefficients are values at one-hot parameters, and the kernel is the inner product of the
coefficients. A constant of the code (x + 1, the level at which a ReLU6 saturates) is a bias: the
constant times a parameter a channel, which is 1 in the network itself.
"""

import math

import torch
from torch.func import functional_call, vmap
from torch.overrides import TorchFunctionMode

MOST = 400_000  # coefficients that are evaluated one by one


def _leaky(q, slope=0.0):
    return torch.where(q > 0, torch.ones_like(q), torch.as_tensor(slope, dtype=q.dtype))


def _per_channel(slope, q):
    return (
        slope.reshape(-1)
        if slope.numel() == 1 or q.dim() < 2
        else slope.reshape(1, -1, *[1] * (q.dim() - 2))
    )


def _saturating(q, low, high):
    on = lambda where, value=1.0: where.to(q.dtype) * value  # noqa: E731
    levels = [on(q <= low, low)] if low not in (0, -math.inf) else []
    return on((q > low) & (q <= high)), *levels, *([on(q > high, high)] if high < math.inf else [])


def _clamp(q, min=None, max=None):
    low, high = -math.inf if min is None else min, math.inf if max is None else max
    return _saturating(q, low, high)


# name of a gate operator -> (factor, *levels) of its value: the output is value * factor + levels
FACTORS = {
    "relu": lambda q, inplace=False: _leaky(q),
    "leaky_relu": lambda q, negative_slope=0.01, inplace=False: _leaky(q, negative_slope),
    "prelu": lambda q, weight: _leaky(q, _per_channel(weight.detach(), q)),
    "abs": lambda q: _leaky(q, -1.0),
    "hardtanh": lambda q, min_val=-1.0, max_val=1.0, inplace=False: _saturating(
        q, min_val, max_val
    ),
    "relu6": lambda q, inplace=False: _saturating(q, 0.0, 6.0),
    "clamp": _clamp,
    "silu": lambda q, inplace=False: torch.sigmoid(q),
    "hardswish": lambda q, inplace=False: torch.nn.functional.hardsigmoid(q),
}
FACTORS["mish"] = lambda q, inplace=False: torch.tanh(torch.log1p(torch.exp(q)))
SUMS = ("add", "radd", "sub", "rsub")
FACTORS["clamp_min"] = FACTORS["threshold"] = lambda q, *zeros, inplace=False: _leaky(q)
FACTORS["gelu"] = lambda q, approximate="none": 0.5 * (1 + torch.erf(q / math.sqrt(2)))
# gates that multiply a value elsewhere: the recorded value itself
VALUES = ("sigmoid", "hardsigmoid", "gt", "lt", "le", "gate")
POOLS = {
    name: f"{name}_with_indices"
    for d in "123"
    for name in (f"max_pool{d}d", f"adaptive_max_pool{d}d")
}


class Frozen(TorchFunctionMode):
    """Records gates on the first run (``gates`` empty), replays them in the same order later."""

    def __init__(self, gates=(), constants=None, ones=1.0):
        super().__init__()
        self.gates, self.replay, self.made, self.ones = list(gates), bool(gates), 0, ones
        self.constants, self.given, self.added = {}, constants or {}, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, called = kwargs or {}, getattr(func, "__name__", "").split(".")[0].strip("_")
        if called == "batch_norm":
            return self._norm(*args, **kwargs)
        if called == "glu":
            value, gate = args[0].chunk(2, *args[1:], **kwargs)
            return value * self._gate(lambda: torch.sigmoid(gate))
        if called in SUMS and any(isinstance(a, int | float) for a in args):
            return self._shift(called, *args)
        if called in ("div", "truediv") and isinstance(args[1], torch.Tensor):
            return self._divided(*args)
        if called in FACTORS:
            result = self._factor(called, args, kwargs)
            return (
                args[0].copy_(result)
                if getattr(func, "__name__", "").endswith("_") or kwargs.get("inplace")
                else result
            )
        if called == "maximum":  # with zeros
            return self._factor("relu", args[:1], {})
        if called == "ones_like":  # the input of a value path
            return self.ones * func(*args, **kwargs)
        if called in VALUES:
            return self._gate(lambda: func(*args, **kwargs))
        if called == "amax":
            value, axis = args[:2]
            return value.gather(axis, self._gate(lambda: value.argmax(axis, keepdim=True)))
        if called in POOLS:
            return self._pool(called, args, kwargs)
        return func(*args, **kwargs)

    def _gate(self, compute):
        if not self.replay:
            self.gates.append(compute())
        self.made += 1
        return self.gates[self.made - 1]

    def _factor(self, called, args, kwargs):
        found = self._gate(lambda: FACTORS[called](args[0].double(), *args[1:], **kwargs))
        factor, *levels = (
            gate.to(args[0].dtype) for gate in (found if isinstance(found, tuple) else (found,))
        )
        return sum((self._constant(level, args[0]) for level in levels), args[0] * factor)

    def _shift(self, called, first, second):
        value, number = (first, second) if isinstance(first, torch.Tensor) else (second, first)
        own, other = {"add": (1, 1), "radd": (1, 1), "sub": (1, -1), "rsub": (-1, 1)}[called]
        return own * value + self._constant(
            torch.as_tensor(float(other * number), dtype=value.dtype), value
        )

    def _constant(self, constant, value):
        """A constant times the parameters that stand for it, one a channel."""
        self.added += 1
        name, ones = f"constant {self.added}", torch.ones(value.shape[1], dtype=value.dtype)
        self.constants[name] = ones
        return constant * self.given.get(name, ones).reshape(-1, *[1] * (value.dim() - 2))

    def _divided(self, value, divisor):
        """A buffer that divides is a diagonal weight, as its inverse would be."""
        return value * divisor

    def _pool(self, called, args, kwargs):
        kwargs = {k: v for k, v in kwargs.items() if k != "return_indices"}
        chosen = self._gate(lambda: getattr(torch.nn.functional, POOLS[called])(*args, **kwargs)[1])
        value = args[0].flatten(2)
        return value.gather(2, chosen.flatten(2).expand(*value.shape[:2], -1)).unflatten(
            2, chosen.shape[2:]
        )

    def _norm(self, value, mean, variance, weight=None, bias=None, *_, **options):
        """Under frozen gates a batch norm is a diagonal weight and a shift; without parameters its
        statistics stand for them.
        """
        side = (1, -1, *[1] * (value.dim() - 2))
        return value * (variance if weight is None else weight).reshape(side) + (
            mean if bias is None else bias
        ).reshape(side)


class Normed(Frozen):
    """As :class:`Frozen`, with batch norms as they are: for the network's own weights, or any
    others.
    """

    def _norm(self, value, mean, variance, *rest, **options):
        return torch.nn.functional.batch_norm(value, mean, variance, *rest, **options)

    def _divided(self, value, divisor):
        return value / divisor


def freeze(net, X):
    """The gates of one run, and the network's output."""
    mode = Normed()
    with torch.no_grad(), mode:
        output = net(X)
    return mode.gates, output


def frozen_output(net, X, gates, weights, mode=Frozen, ones=1.0):
    """Output of the network with these weights under these gates, ``(n, output units)``; ``ones``:
    what a path from ones starts with.
    """
    constants = {name: w for name, w in weights.items() if name.startswith("constant ")}
    own = {name: w for name, w in weights.items() if name not in constants}
    with mode(gates, constants, ones):
        return functional_call(net, own, (X,), tie_weights=False).flatten(1)


def free_weights(net, X):
    """Parameters, buffers, and those that stand for the constants of the code."""
    mode = Frozen()
    with torch.no_grad(), mode:
        net(X)
    buffers = {name: b for name, b in net.named_buffers() if b.dtype.is_floating_point}
    return {
        name: w.detach()
        for name, w in [*net.named_parameters(), *buffers.items(), *mode.constants.items()]
    }


def _carrying(function, weights):
    """Weights that the frozen output depends on, grouped by module: a path meets at most one entry
    of a group.
    """
    free = {name: torch.randn_like(w).requires_grad_() for name, w in weights.items()}
    output = function(free).square().sum()
    if not output.requires_grad:
        return []
    slopes = torch.autograd.grad(output, list(free.values()), allow_unused=True)
    groups = {}
    for name, slope in zip(free, slopes, strict=True):
        if slope is not None and slope.abs().max() > 0:
            groups.setdefault(name.rpartition(".")[0] or name, []).append(name)
    return list(groups.values())


def _one_hot(shapes):
    """For each tensor of a group: zeros, then each one-hot choice of the whole group, ``(1 +
    entries, *shape)``.
    """
    sizes = [math.prod(shape) for shape in shapes]
    choices = torch.cat([torch.zeros(1, sum(sizes)), torch.eye(sum(sizes))]).double()
    return [
        part.reshape(-1, *shape)
        for part, shape in zip(choices.split(sizes, 1), shapes, strict=True)
    ]


class TooManyError(ValueError):
    """More coefficients than can be evaluated one by one."""


def coefficients(net, X, *, bias, most=MOST, gates=None, ones=False, sizes=None):
    """Taylor coefficients of the frozen output in its parameters: ``(monomials, n, output units)``.

    ``bias`` "ignore" keeps the part that is linear in the input, which no bias and no constant
    enters. ``gates``: of the same network in another type of number. ``ones``: in the place of the
    input. ``sizes``: of the entries of parameters, by name, where they are not 1.
    """
    gates, weights, start = (
        gates or freeze(net, X)[0],
        free_weights(net, X),
        torch.ones_like(X) if ones else X,
    )

    def function(w):
        w = {name: (sizes or {}).get(name, 1.0) * tensor for name, tensor in w.items()}
        f = frozen_output(net, start, gates, w)
        return (
            f
            if bias == "paths"
            else f - frozen_output(net, torch.zeros_like(X), gates, w, ones=0.0)
        )

    groups = _carrying(function, weights)
    tables = {}
    for group in groups:
        tables.update(zip(group, _one_hot([weights[name].shape for name in group]), strict=True))
    sides = [len(tables[group[0]]) for group in groups]
    if math.prod(sides) > most:
        raise TooManyError(f"{math.prod(sides)} coefficients, at most {most}")
    if not groups:  # no path: a dead network, or ones in the place of its input
        return function(weights)[None]
    axis = {name: i for i, group in enumerate(groups) for name in group}
    index = torch.cartesian_prod(*[torch.arange(side) for side in sides]).reshape(-1, len(sides))
    still = {name: weights[name] for name in weights if name not in tables}
    one = lambda *chosen: function({**still, **dict(zip(tables, chosen, strict=True))})  # noqa: E731
    parts = [
        vmap(one)(*[tables[name][rows[:, axis[name]]] for name in tables])
        for rows in index.split(4096)
    ]
    values = torch.cat(parts).reshape(*sides, *parts[0].shape[1:])
    # affine in each group: what the choice adds to the value without it
    for i in range(len(sides)):
        base = values.narrow(i, 0, 1)
        values = torch.cat([base, values.narrow(i, 1, sides[i] - 1) - base], i)
    return values.flatten(0, len(sides) - 1)


def differentiated_kernel(net, X, *, bias, **options):
    """The kernel by differentiation, scale "count": the inner product of Taylor coefficients, mean
    over the output units.
    """
    found = coefficients(net, X, bias=bias, **options).detach()
    return (torch.einsum("pnu,pmu->nm", found, found) / found.shape[2]).numpy()


def random_outputs(net, X, gates, generator, *, draws):
    """Outputs under random signs over the root of the fan-in, biases and constants 0: ``(draws, n,
    output units)``.
    """
    weights, outputs = free_weights(net, X), []
    for _ in range(draws):
        drawn = {name: _random_sign(net, name, w, generator) for name, w in weights.items()}
        outputs.append(frozen_output(net, X, gates, drawn).detach())
    return torch.stack(outputs)


def _random_sign(net, name, parameter, generator):
    if name.endswith("bias") or name.startswith("constant "):
        return torch.zeros_like(parameter)
    signs = 2.0 * torch.randint(0, 2, parameter.shape, generator=generator).to(parameter.dtype) - 1
    return signs / fan_in(net.get_submodule(name.rpartition(".")[0]), parameter) ** 0.5


def fan_in(module, weight):
    """Weights that enter one unit; a transposed convolution's kernel holds (in, out / groups, ...)."""
    if weight.dim() < 2:
        return 1
    return (
        weight[:, 0].numel() // module.groups
        if isinstance(module, torch.nn.modules.conv._ConvTransposeNd)
        else weight[0].numel()
    )
