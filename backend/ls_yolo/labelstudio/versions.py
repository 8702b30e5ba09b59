"""Versions of predictions: which are of the kit's models, and which people have imported."""

from __future__ import annotations

import re

MODEL = r"[^@+]+@[0-9a-f]{12}"
MODELS = re.compile(rf"{MODEL}(\+{MODEL})*")


def models(version: str) -> tuple[str, ...]:
    """The names of the models in a version that the kit gives, as ``person@0123456789ab+head@...``;
    none in any other, such as people import under names of their own."""
    if not MODELS.fullmatch(version):
        return ()
    return tuple(part.rpartition("@")[0] for part in version.split("+"))
