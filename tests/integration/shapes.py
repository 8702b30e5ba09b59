"""Small models of drawn shapes: trained once in the backend's image, two minutes, and then kept."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from conftest import GIVE_WAY, IMAGES, ROOT, client_with
from lib.files import sha256_of

SCRIPT = Path(__file__).with_name("train_shapes.py")
WEIGHTS = ROOT / "models" / "yolov8n.pt"
MADE_OF = [
    SCRIPT,
    WEIGHTS,
    *(ROOT / "backend" / f"{name}.lock" for name in ("torch", "requirements")),
]
# The user's, not the checkout's: what they are made of is in the name, and a clean clone is no
# reason to train anew.
KEPT = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ls-yolo" / "shapes"


@functools.cache
def shapes() -> Path:
    """The folder of ``<task>.pt``, ``<task>.jpg`` and truth.json that train_shapes.py makes."""
    made_of = "".join(map(sha256_of, MADE_OF))
    folder = KEPT / hashlib.sha256(made_of.encode()).hexdigest()[:16]
    if folder.exists():
        return folder
    client_with(IMAGES["backend"])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        Path(name).chmod(0o777)  # the image's user is not this one
        output = Path(name, "made")
        output.mkdir()
        output.chmod(0o777)
        subprocess.run(
            [
                "docker", "run", "--rm", "--network", "none", "--shm-size", "256m",
                "-e", "YOLO_CONFIG_DIR=/tmp", "-e", "YOLO_OFFLINE=true",
                *(word for pair in GIVE_WAY.items() for word in ("-e", "=".join(pair))),
                "-v", f"{SCRIPT}:/train_shapes.py:ro",
                "-v", f"{WEIGHTS}:/models/yolov8n.pt:ro",
                "-v", f"{output}:/out", "--workdir", "/tmp", "--entrypoint", "python",
                IMAGES["backend"], "/train_shapes.py", "/models/yolov8n.pt", "/out",
            ],
            check=True, capture_output=True, timeout=900,
        )  # fmt: skip
        shutil.copytree(output, Path(name, "kept"))
        try:
            Path(name, "kept").rename(folder)
        except OSError:
            if not folder.exists():  # else another run has made it meanwhile
                raise
    return folder
