"""Puts this folder on the path, so that tests share the planted mixtures."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
