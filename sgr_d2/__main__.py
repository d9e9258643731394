"""``python -m sgr_d2``: the versions of all parts, and what is missing."""

import sys

from sgr_d2.collect_env import main

sys.exit(main())
