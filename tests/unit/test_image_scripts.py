"""The shell scripts of image builds, run with stand-ins for apt-get and uv."""

from __future__ import annotations

import os
import subprocess

import common
import pytest

LOCK = """\
# a comment
nvidia-cublas-cu12==12.8.4.1 \\
    --hash=sha256:11
numpy==2.2.6 \\
    --hash=sha256:22 \\
    --hash=sha256:33
torch==2.10.0 \\
    --hash=sha256:44
torchvision==0.25.0 ; sys_platform == 'linux' \\
    --hash=sha256:55
triton==3.6.0 \\
    --hash=sha256:66
typing-extensions==4.15.0 \\
    --hash=sha256:77
"""

STUB = """\
#!/bin/sh
{
	echo "$(basename "$0") $*"
	echo "default=${UV_DEFAULT_INDEX-} index=${UV_INDEX-} ca=${SSL_CERT_FILE-}"
	for word; do case $word in *.lock) cat "$word" ;; esac; done
} >>"$LOG"
"""


@pytest.fixture
def kit(tmp_path):
    """Runs a script of the kit; returns what the stand-ins were called with."""
    (tmp_path / "bin").mkdir()
    stub = tmp_path / "bin" / "uv"
    stub.write_text(STUB)
    stub.chmod(0o755)
    lock = tmp_path / "torch.lock"
    lock.write_text(LOCK)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    log = tmp_path / "log"

    def run(*words, **mirrors):
        if mirrors:
            lines = [f"{name}='{value}'\n" for name, value in mirrors.items()]
            (secrets / "mirrors").write_text("".join(lines))
        log.unlink(missing_ok=True)
        done = subprocess.run(
            [str(common.ROOT / "scripts" / "image" / words[0]), *words[1:]],
            env={
                "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
                "SECRETS_DIR": str(secrets),
                "LOG": str(log),
            },
            capture_output=True,
            text=True,
        )
        return done, log.read_text() if log.exists() else ""

    run.lock = str(lock)
    run.secrets = secrets
    return run


def test_a_lock_is_installed_by_hash_from_the_mirror(kit):
    (kit.secrets / "ca").write_text("x")
    done, log = kit("uv-install", "/venv", kit.lock, PIP_INDEX_URL="https://mirror/simple")
    assert done.returncode == 0
    assert "--python /venv/bin/python" in log
    assert "--require-hashes" in log
    assert f"-r {kit.lock}" in log
    assert f"default=https://mirror/simple index= ca={kit.secrets / 'ca'}" in log
    assert "https://mirror" not in done.stdout + done.stderr


def test_torch_comes_from_the_lock_where_no_index_is_named(kit):
    _, log = kit("uv-install", "--torch", "/venv", kit.lock)
    assert log.count("uv pip install") == 1
    assert "--require-hashes" in log


def test_torch_comes_from_its_index_by_version_and_the_rest_by_hash(kit):
    done, log = kit("uv-install", "--torch", "/venv", kit.lock, TORCH_INDEX="https://t/whl/cpu")
    assert done.returncode == 0
    first, second = log.split("uv pip install")[1:]
    assert "--require-hashes" in first
    assert "index= " in first
    for there in ("numpy==2.2.6", "sha256:33", "typing-extensions"):
        assert there in first
    for gone in ("torch", "triton", "nvidia", "sha256:11", "sha256:55", "sha256:66"):
        assert gone not in first
    assert "torch==2.10.0 torchvision==0.25.0\n" in second
    assert "index=https://t/whl/cpu" in second
    assert "--require-hashes" not in second


def test_an_index_for_torch_does_not_change_other_locks(kit):
    _, log = kit("uv-install", "/venv", kit.lock, TORCH_INDEX="https://t/whl/cpu")
    assert "index= " in log
    assert log.count("uv pip install") == 1


def test_a_lock_without_torch_is_refused(kit, tmp_path):
    other = tmp_path / "other.lock"
    other.write_text("numpy==2.2.6 \\\n    --hash=sha256:22\n")
    done, log = kit("uv-install", "--torch", "/venv", str(other), TORCH_INDEX="https://t")
    assert done.returncode == 1
    assert "no line torch==" in done.stderr
    assert not log


@pytest.mark.parametrize("words", [["apt-install"], ["uv-install", "/venv"], ["get-uv"]])
def test_each_says_how_it_is_called(kit, words):
    done, _ = kit(*words)
    assert done.returncode == 2
    assert done.stderr
