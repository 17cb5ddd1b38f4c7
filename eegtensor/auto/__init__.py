"""The pipeline that needs no choice: decoders weighed on source people.

`candidates` says what is weighed, `stacking` how, `experts` and `refining` what is
learned from a new person's unlabelled trials, `fronts` makes what decoders read.
"""

from eegtensor.auto.candidates import CANDIDATES, DEFAULT, QUICK, Candidate
from eegtensor.auto.decoder import AutoDecoder

__all__ = ["CANDIDATES", "DEFAULT", "QUICK", "AutoDecoder", "Candidate"]
