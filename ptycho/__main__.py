"""`python -m ptycho` is the `ptycho` command."""

import sys

from ptycho.cli import main

sys.exit(main())
