"""Smaller and faster networks: factorised, pruned, of few bits a weight.

`compress` applies a recipe to a copy of a trained network, with fine-tuning by
`eegtensor.training.train`; `table` compares recipes by accuracy, bytes on the disk and
time; `save` and `load` keep what they made, as safetensors and JSON. Weights on
manifolds (Stiefel, SPD) are left as they are by all of them.
"""

from eegtensor.compress.binary import Binary, BinaryLayer
from eegtensor.compress.codebooks import Codebooks, rebuild_layer
from eegtensor.compress.codeweights import CodebookLayer, OneCodeAStep
from eegtensor.compress.compressor import Compressor, FineTune
from eegtensor.compress.elastic import ElasticLayer, Form, fake_quantise, set_form
from eegtensor.compress.elasticnet import Elastic, GroupProgressive, search_forms
from eegtensor.compress.expansion import LinearBlocks, expand_blocks, tie_blocks
from eegtensor.compress.factorise import Factorise, factorise
from eegtensor.compress.gates import Gate, PolarisedSize
from eegtensor.compress.int8 import Int8, Int8Layer
from eegtensor.compress.named import COMPRESSORS, Store, compress
from eegtensor.compress.packed import PackedLayer
from eegtensor.compress.prune import Prune, find_pairs
from eegtensor.compress.saving import load, save
from eegtensor.compress.signs import periodic, periodic_error, quadratic_sign, reste
from eegtensor.compress.tables import latency, table

__all__ = [
    "COMPRESSORS",
    "Binary",
    "BinaryLayer",
    "CodebookLayer",
    "Codebooks",
    "Compressor",
    "Elastic",
    "ElasticLayer",
    "Factorise",
    "FineTune",
    "Form",
    "Gate",
    "GroupProgressive",
    "Int8",
    "Int8Layer",
    "LinearBlocks",
    "OneCodeAStep",
    "PackedLayer",
    "PolarisedSize",
    "Prune",
    "Store",
    "compress",
    "expand_blocks",
    "factorise",
    "fake_quantise",
    "find_pairs",
    "latency",
    "load",
    "periodic",
    "periodic_error",
    "quadratic_sign",
    "rebuild_layer",
    "reste",
    "save",
    "search_forms",
    "set_form",
    "table",
    "tie_blocks",
]
