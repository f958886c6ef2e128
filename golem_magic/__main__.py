"""``python -m golem_magic``: the same as the command ``golem-magic``."""

import sys

from golem_magic.cli import main

sys.exit(main())
