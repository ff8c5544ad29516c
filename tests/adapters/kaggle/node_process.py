"""The node of bench/kaggle_kills.py, for tests that import it by name."""

import sys
from importlib import util
from pathlib import Path

_spec = util.spec_from_file_location("kaggle_kills", Path(__file__).parents[3] / "bench" / "kaggle_kills.py")
assert _spec and _spec.loader
kills = sys.modules[_spec.name] = util.module_from_spec(_spec)
_spec.loader.exec_module(kills)

config_of, parts_of, EmulatedClock = kills.config_of, kills.parts_of, kills.EmulatedClock
