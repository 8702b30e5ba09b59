"""The lock files, and how they are made."""

from __future__ import annotations

from dev import lock
from lib import ROOT


def test_locks_name_nothing_of_this_machine():
    for made in lock.LOCKS:
        text = made.target.read_text()
        assert "--hash=sha256:" in text
        assert "://" not in text
        assert str(ROOT) not in text


def test_packages_of_a_lock():
    text = (
        "# c\na==1 \\\n    --hash=sha256:1\nb-c[x]==2 ; sys_platform == 'linux' \\\n    # via a\n"
    )
    assert lock.packages(text) == ["a", "b-c"]


def test_what_torchs_lock_brings_is_left_out_of_the_backends(tmp_path):
    backend = next(made for made in lock.LOCKS if made.source == "backend/requirements.in")
    words = lock.command(backend, tmp_path / "uv", upgrade=True)
    left_out = {words[i + 1] for i, word in enumerate(words) if word == "--no-emit-package"}
    assert {"torch", "torchvision"} <= left_out
    assert "--upgrade" in words
    assert "--generate-hashes" in words
