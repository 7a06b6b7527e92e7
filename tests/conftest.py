"""Make `tests/` importable, so that every test file can use `factories`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
