"""``python -m hwbench``: the same as the ``hwbench`` command."""

from __future__ import annotations

import sys

from hwbench.cli import main

sys.exit(main())
