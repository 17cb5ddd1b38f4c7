"""Tokens of EEG: recordings to small integers and back."""

from eegtensor.tokens.evaluate import Distortion, distortion, evaluate
from eegtensor.tokens.tokenizer import EEGTokenizer
from eegtensor.tokens.tokens import Tokens, join

__all__ = ["Distortion", "EEGTokenizer", "Tokens", "distortion", "evaluate", "join"]
