"""Tokens of EEG: recordings to small integers and back."""

from eegtensor.tokens._objective import MaskedScores
from eegtensor.tokens._storing import load_tokens, save_tokens
from eegtensor.tokens.classifier import TokenClassifier
from eegtensor.tokens.code_plots import plot_codes, plot_usage
from eegtensor.tokens.evaluate import Distortion, distortion, evaluate
from eegtensor.tokens.masking import draw_mask
from eegtensor.tokens.module import TokenNet
from eegtensor.tokens.plots import plot_rate_distortion, plot_reconstruction
from eegtensor.tokens.pretrain import MaskedTokenModel
from eegtensor.tokens.rates import rate_distortion
from eegtensor.tokens.tokenize import Tokenization, tokenize_files
from eegtensor.tokens.tokenizer import EEGTokenizer
from eegtensor.tokens.tokens import Tokens, join

__all__ = [
    "Distortion",
    "EEGTokenizer",
    "MaskedScores",
    "MaskedTokenModel",
    "TokenClassifier",
    "TokenNet",
    "Tokenization",
    "Tokens",
    "distortion",
    "draw_mask",
    "evaluate",
    "join",
    "load_tokens",
    "plot_codes",
    "plot_rate_distortion",
    "plot_reconstruction",
    "plot_usage",
    "rate_distortion",
    "save_tokens",
    "tokenize_files",
]
