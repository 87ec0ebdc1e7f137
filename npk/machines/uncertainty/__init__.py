"""How sure a machine is: Gaussian processes, conformal sets and intervals, and probabilities."""

from npk.machines.uncertainty import calibration, conformal, gaussian_process

__all__ = ["calibration", "conformal", "gaussian_process"]
