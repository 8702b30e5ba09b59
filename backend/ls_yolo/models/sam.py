"""SAM (Segment Anything) in models.yaml: it outlines what a person points at, and has no classes.

Its weights are numbers without the network that they belong to, so an entry says which that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

SAM = "sam"
"""The ``task`` of such an entry."""
ARCHITECTURES = (
    "mobile_sam",
    "sam_b",
    "sam_l",
    "sam_h",
    "sam2_t",
    "sam2_s",
    "sam2_b",
    "sam2_l",
    "sam2.1_t",
    "sam2.1_s",
    "sam2.1_b",
    "sam2.1_l",
)
"""What ultralytics can build, by the names of its own weights files."""
KEYS = ("weights", "sha256", "task", "architecture")
"""What an entry of a SAM may say; all else is of models that have classes and scores."""


def is_sam(item: Mapping[str, Any]) -> bool:
    """Whether an entry of models.yaml is that of a SAM."""
    return item.get("task") == SAM


def architecture(item: Mapping[str, Any]) -> str | None:
    """What network the weights of an entry are for: what it says, else what its file is called;
    None where neither says it, and for all that is no SAM."""
    if not is_sam(item):
        return None
    stem = PurePath(item["weights"]).name.removesuffix(".pt")
    found = item.get("architecture") or stem
    return found if found in ARCHITECTURES else None


def fault(item: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with an entry that the schema lets pass: the key, and what to say of it."""
    known = ", ".join(ARCHITECTURES)
    if not is_sam(item):
        if "architecture" in item:
            return "architecture", (
                f"found {item['architecture']!r} for a model that is no SAM; remove it, or say "
                f"task: {SAM}"
            )
        return None
    wrong = next((key for key in item if key not in KEYS), None)
    if wrong:
        return wrong, (
            f"means nothing for a SAM, which has neither classes nor a threshold; remove it. Such "
            f"an entry has {', '.join(KEYS)}"
        )
    if architecture(item) is None:
        return "weights", (
            f"{item['weights']!r} does not say which SAM it is; add the key architecture, one of "
            f"{known}"
        )
    return None


def difference(
    found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], later: set[str]
) -> str:
    """How names and shapes of tensors differ from those that are ``wanted`` and those of ``later``,
    whose shapes do not matter; empty where they do not."""
    if missing := [name for name in (*wanted, *sorted(later)) if name not in found]:
        return f"{len(missing)} of {len(wanted)} tensors are missing, the first is {missing[0]!r}"
    if more := [name for name in found if name not in wanted and name not in later]:
        return f"it has {len(more)} tensors more than that, the first is {more[0]!r}"
    for name, shape in wanted.items():
        if found[name] != shape:
            return f"found {name!r} of shape {found[name]}, expected {shape}"
    return ""
