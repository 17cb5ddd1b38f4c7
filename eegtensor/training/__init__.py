"""Training: one loop, and the plugs that change what a step does.

`train` runs a network over trials; perturbations, objectives, gradient
transforms, averagers and samplers plug into it, as `METHODS` lists them.
"""

from eegtensor.training.adapters import register_adapter
from eegtensor.training.batch import UNLABELLED, Batch
from eegtensor.training.callbacks import (
    BestWeights,
    CSVLog,
    EarlyStopping,
    MomentumSchedule,
    Progress,
    TensorBoardLog,
)
from eegtensor.training.checkpoint import Checkpoint
from eegtensor.training.device import as_device, device_of
from eegtensor.training.evaluation import balanced_accuracy, evaluate
from eegtensor.training.history import History
from eegtensor.training.loop import train
from eegtensor.training.methods import METHODS, Method
from eegtensor.training.named import make_plugs
from eegtensor.training.network import Network, features_of, find_head, forward_all
from eegtensor.training.objectives import CrossEntropy, WeightedSum
from eegtensor.training.optimizers import check_optimizer, make_optimizer
from eegtensor.training.protocols import (
    Averager,
    Callback,
    Delta,
    GradTransform,
    Objective,
    Perturbation,
    Recipe,
    Sampler,
    Step,
    StepContext,
    TrainState,
)
from eegtensor.training.refit import refit_statistics
from eegtensor.training.registry import Setup, build
from eegtensor.training.samplers import DomainBalancedSampler, ShuffleSampler
from eegtensor.training.schedules import Momenta, momentum_schedule
from eegtensor.training.space import ParamSpace
from eegtensor.training.statistics import (
    StatisticsGuard,
    copy_statistics,
    evaluating,
)
from eegtensor.training.workers import Workers

__all__ = [
    "METHODS",
    "UNLABELLED",
    "Averager",
    "Batch",
    "BestWeights",
    "CSVLog",
    "Callback",
    "Checkpoint",
    "CrossEntropy",
    "Delta",
    "DomainBalancedSampler",
    "EarlyStopping",
    "GradTransform",
    "History",
    "Method",
    "Momenta",
    "MomentumSchedule",
    "Network",
    "Objective",
    "ParamSpace",
    "Perturbation",
    "Progress",
    "Recipe",
    "Sampler",
    "Setup",
    "ShuffleSampler",
    "StatisticsGuard",
    "Step",
    "StepContext",
    "TensorBoardLog",
    "TrainState",
    "WeightedSum",
    "Workers",
    "as_device",
    "balanced_accuracy",
    "build",
    "check_optimizer",
    "copy_statistics",
    "device_of",
    "evaluate",
    "evaluating",
    "features_of",
    "find_head",
    "forward_all",
    "make_optimizer",
    "make_plugs",
    "momentum_schedule",
    "refit_statistics",
    "register_adapter",
    "train",
]
