"""Averages of weights over a run, over folds and over sites, one file each."""

from eegtensor.training.averagers.mehlsoup import MEHLSoup
from eegtensor.training.averagers.modes import ModeEnsemble
from eegtensor.training.averagers.swa import EMA, SWA
from eegtensor.training.averagers.trajectory import Trajectory
from eegtensor.training.averagers.twa import TWA

__all__ = ["EMA", "SWA", "TWA", "MEHLSoup", "ModeEnsemble", "Trajectory"]
