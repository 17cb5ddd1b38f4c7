"""Models that keep learning, forget on request, and learn without sharing trials."""

from eegtensor.lifelong.analytichead import AnalyticHead
from eegtensor.lifelong.audit import Audit, audit_forgetting
from eegtensor.lifelong.federated import Site, simulate_federation
from eegtensor.lifelong.federatedclassifier import FederatedClassifier
from eegtensor.lifelong.flower import flower_client, flower_strategy
from eegtensor.lifelong.forgetting import Forgotten, forget
from eegtensor.lifelong.hypernetwork import HyperNetwork, OutputDrift
from eegtensor.lifelong.kernelsites import DecentralizedKernelRidge
from eegtensor.lifelong.known import Known
from eegtensor.lifelong.learn2pfed import Learn2pFed
from eegtensor.lifelong.membership import (
    Membership,
    confidences,
    membership_inference,
)
from eegtensor.lifelong.networkfeatures import NetworkFeatures
from eegtensor.lifelong.online import OnlineNetwork

__all__ = [
    "AnalyticHead",
    "Audit",
    "DecentralizedKernelRidge",
    "FederatedClassifier",
    "Forgotten",
    "HyperNetwork",
    "Known",
    "Learn2pFed",
    "Membership",
    "NetworkFeatures",
    "OnlineNetwork",
    "OutputDrift",
    "Site",
    "audit_forgetting",
    "confidences",
    "flower_client",
    "flower_strategy",
    "forget",
    "membership_inference",
    "simulate_federation",
]
