"""Weights files without torch."""

from __future__ import annotations

import io
import pickle
import zipfile


def write(path, content, **storages):
    """A file as torch.save writes it; ``storages``: key to count of numbers."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=2)
    pickler.persistent_id = lambda found: (
        ("storage", "FloatStorage", found.key, "cpu", storages[found.key])
        if isinstance(found, Storage)
        else None
    )
    pickler.dump(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("best/data.pkl", buffer.getvalue())
        archive.writestr("best/data/0", b"")
    return path


class Storage:
    def __init__(self, key):
        self.key = key
