"""What the scripts share. It imports nothing of theirs that lies above it.

Only the standard library is used, and nothing newer than Python 3.11: a bare Debian 12 has no more.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""
