"""What several files test: trained once, not changed by any."""

from __future__ import annotations

import pytest
from tokens._given import Given, simulated

from eegtensor.tokens.classifier import TokenClassifier


@pytest.fixture(scope="package")
def given() -> Given:
    return simulated()


@pytest.fixture(scope="package")
def probe(given: Given) -> TokenClassifier:
    clf = TokenClassifier(given.tokenizer, given.model)
    source = ~given.test
    return clf.fit(given.trials[source], given.trials.y[source], **given.part(source))
