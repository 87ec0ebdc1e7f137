"""Training regimes of the papers: which parameters learn, and where the gates come from."""

from typing import get_args

from torch import nn

from npk.choices import RegimeName
from npk.errors import OptionError
from npk.networks.gated import GatedNetwork, GatingNetwork, PlainNetwork

REGIMES: tuple[str, ...] = get_args(RegimeName)


def default_regime(net: nn.Module) -> str:
    """``"relu"`` for plain networks, ``"dlnpf"`` for soft gates, ``"frnpf-ii"`` for hard ones."""
    if not isinstance(net, GatedNetwork):
        return "relu"
    return "frnpf-ii" if net.gate.hard else "dlnpf"


def prepare(net: nn.Module, regime: str, *, features: nn.Module | None = None) -> nn.Module:
    """Freeze and copy parameters, in place, so that training ``net`` follows ``regime``.

    ======================
    ===========================================================================================
    ``"relu"``             an ordinary network: gates and weights learn entangled ``"dlnpf"``
    decoupled learning: gating and value network learn together, gates must be soft ``"flnpf"``
    fixed learnt features: the gates of the trained network ``features``, hard and frozen
    ``"frnpf-ii"``         fixed random features, independent initialisation: gates as they were
    drawn, hard and frozen ``"frnpf-di"``         fixed random features, dependent initialisation:
    the gating network is a frozen copy of the
                           value network's initial weights, gates hard
    ======================
    ===========================================================================================

    Args:
        net: a network made by :func:`npk.networks.build`; any module for ``"relu"``.
        regime: one of the names above.
        features: for ``"flnpf"``: a trained plain network of the same architecture (``net`` a dgn),
            or a trained network of the same kind.

    Returns:
        The same network.

    Raises:
        OptionError: an unknown regime, or a network that does not suit it.
    """
    _check(net, regime, features)
    net.requires_grad_(True)
    if isinstance(net, GatedNetwork) and regime != "dlnpf":
        if features is not None:
            _copy_gating(net, features)
        elif regime == "frnpf-di":
            _copy_stack(net.value, net)
        net.gating.requires_grad_(False)
    return net


def _check(net: nn.Module, regime: str, features: nn.Module | None) -> None:
    if regime not in REGIMES:
        raise OptionError(
            f"regime is {regime!r}, it must be one of {', '.join(REGIMES)}. Choose one of these."
        )
    gated = isinstance(net, GatedNetwork)
    if gated == (regime == "relu"):
        if gated:
            wanted = "a plain network (kind dnn)"
        else:
            wanted = "a gated network (kind dgn, dlgn or dlgn-sf)"
        raise OptionError(
            f"regime {regime!r} trains {wanted}, this is a {type(net).__name__}. "
            f"Build the other kind."
        )
    if gated and net.gate.hard == (regime == "dlnpf"):
        wanted = "soft" if net.gate.hard else "hard"
        raise OptionError(
            f"regime {regime!r} needs {wanted} gates, the network has the others. "
            f"Build it with gates={wanted!r}."
        )
    if (features is None) == (regime == "flnpf"):
        raise OptionError(
            "features=, a trained network whose gates are copied, belongs to regime='flnpf'. Give "
            "both or neither."
        )


def _copy_gating(net: GatedNetwork, features: nn.Module) -> None:
    """The gates of a trained network: of a gated one, those of its gating network."""
    if (
        isinstance(features, PlainNetwork)
        and isinstance(net.gating, GatingNetwork)
        and not net.gating.linear
    ):
        _copy_stack(features.value, net)
    elif (
        isinstance(features, GatedNetwork)
        and features.gating.state_dict().keys() == net.gating.state_dict().keys()
    ):
        _load(net.gating, features.gating.state_dict())
    else:
        message = (
            f"a {type(features).__name__} cannot lend its gates to this network: they need "
            f"the same kind, or dnn to dgn."
        )
        raise OptionError(f"{message} Give a trained network of the same architecture.")


def _copy_stack(source: nn.Module, net: GatedNetwork) -> None:
    """Copy a stack of one description into the gating network, which needs its first layers."""
    if not isinstance(net.gating, GatingNetwork):
        raise OptionError(
            "the gating network of a dlgn-sf has other layers than its value network. Use "
            "kind='dgn' or 'dlgn', or regime='frnpf-ii'."
        )
    needed = net.gating.stack.state_dict().keys()
    _load(
        net.gating.stack,
        {name: value for name, value in source.state_dict().items() if name in needed},
    )


def _load(module: nn.Module, state: dict) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise OptionError(
            "the gating network and the network to copy differ in layers or widths. Build both "
            "with the same options."
        ) from error
