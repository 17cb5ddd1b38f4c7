"""`python -m eegtensor` is the command line."""

import sys

from eegtensor.cli import main

sys.exit(main())
