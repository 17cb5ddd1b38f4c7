"""Domain names, codes and the table."""

from __future__ import annotations

import numpy as np
import pytest

from eegtensor import EEGTensorError
from eegtensor.domains import (
    UNSEEN,
    Domain,
    DomainTable,
    check_unseen_policy,
    domain_names,
    encode_domains,
)


def test_names_are_strings_whatever_they_were() -> None:
    names = domain_names(2, np.array([1, 2]), ["a", "left/hand"])
    assert names == [Domain("", "1", "a"), Domain("", "2", "left/hand")]
    assert domain_names(2) == [Domain("", "", "")] * 2
    assert domain_names(2, "ann") == [Domain("", "ann", "")] * 2


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_missing_labels_are_refused(missing: object) -> None:
    with pytest.raises(EEGTensorError, match=r"subjects is missing .* trials 1"):
        domain_names(2, ["a", missing])


def test_lengths() -> None:
    with pytest.raises(EEGTensorError, match="sessions has 1 entries for 2 trials"):
        domain_names(2, ["a", "b"], ["x"])


def test_codes_follow_first_appearance_and_unseen_is_minus_one() -> None:
    codes, names = encode_domains(domain_names(3, ["b", "a", "b"]))
    assert codes.tolist() == [0, 1, 0] and codes.dtype == np.int64
    table = DomainTable(names)
    assert table.encode([Domain("", "zoe", "")]).tolist() == [UNSEEN]
    assert len(table) == 2
    assert table.encode([Domain("", "zoe", "")], grow=True).tolist() == [2]
    assert Domain("", "zoe", "") in table


def test_the_same_session_name_of_two_people_is_two_domains() -> None:
    codes, _ = encode_domains(domain_names(2, ["a", "b"], ["1", "1"]))
    assert codes.tolist() == [0, 1]


def test_policy() -> None:
    assert check_unseen_policy("adapt") == "adapt"
    with pytest.raises(EEGTensorError, match="choose one of 'pooled', 'adapt'"):
        check_unseen_policy("guess")
