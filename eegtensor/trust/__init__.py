"""Trust: attacks, scores of novelty, calibration, certificates, explanations.

Each subpackage is imported by its own name: ``from eegtensor.trust import attacks``.
"""
