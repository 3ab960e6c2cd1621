"""`python -m jaxmoe` is `jaxmoe`."""

import sys

from jaxmoe.cli import main

sys.exit(main())
