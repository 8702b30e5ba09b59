"""Runs what is in this folder: python3 scripts/dev NAME [ARGUMENT...]"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Python looks in the folder that it runs; scripts lie above, the list of settings in backend.
sys.path[:1] = [str(HERE.parent), str(HERE.parents[1] / "backend")]
NAMES = sorted(path.stem for path in HERE.glob("[!_]*.py"))

if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
    sys.exit(f"python3 scripts/dev NAME [ARGUMENT...], with one of: {', '.join(NAMES)}")
del sys.argv[0]
runpy.run_module(f"dev.{sys.argv[0]}", run_name="__main__", alter_sys=True)
