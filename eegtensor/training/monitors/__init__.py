"""Callbacks that watch for what a loss does not show, one file each."""

from eegtensor.training.monitors.selffitting import SelfFitting, self_fitting

__all__ = ["SelfFitting", "self_fitting"]
