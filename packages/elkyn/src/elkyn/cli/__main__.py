"""`python -m elkyn.cli`: the same as `elkyn`."""

import sys

from elkyn.cli.program import main

sys.exit(main())
