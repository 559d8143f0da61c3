"""``python -m openqci`` is the same as the ``openqci`` command."""

import sys

from openqci.cli.main import main

sys.exit(main())
