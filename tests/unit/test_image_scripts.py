"""The shell scripts of image builds, run with stand-ins for apt-get and uv."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import subprocess
import threading
import zipfile

import pytest

from lib import ROOT

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
            [str(ROOT / "scripts" / "image" / words[0]), *words[1:]],
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


def fake_wheel(folder, name, version, *requires):
    """A wheel with nothing in it but its name; returns its hash."""
    file = name.replace("-", "_")
    info = f"{file}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {required}\n" for required in requires)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{file}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def indexes(tmp_path):
    """Two package indexes on this machine, ``main`` and ``torch``, each a folder of folders."""
    root = tmp_path / "indexes"

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(root))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield root, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


UV = ROOT / ".tools" / "uv" / "bin" / "uv"


@pytest.mark.skipif(not UV.exists(), reason="uv is not here: make test-tools")
def test_the_real_uv_takes_torch_from_its_index(tmp_path, indexes):
    root, url = indexes
    needs = ("typing-extensions", "nvidia-cublas")
    locked = fake_wheel(root / "main/torch", "torch", "2.10.0", *needs)
    fake_wheel(root / "torch/torch", "torch", "2.10.0+cpu", *needs)
    pinned = fake_wheel(root / "main/typing-extensions", "typing-extensions", "4.15.0")
    # An index of torch holds old copies of common packages too; they must not win.
    fake_wheel(root / "torch/typing-extensions", "typing-extensions", "4.9.0")
    fake_wheel(root / "torch/nvidia-cublas", "nvidia-cublas", "12.1")
    (tmp_path / "torch.lock").write_text(
        f"torch==2.10.0 \\\n    --hash=sha256:{locked}\n"
        f"typing-extensions==4.15.0 \\\n    --hash=sha256:{pinned}\n"
    )
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "mirrors").write_text(
        f"PIP_INDEX_URL='{url}/main'\nTORCH_INDEX='{url}/torch'\n"
    )
    venv = tmp_path / "venv"
    subprocess.run([str(UV), "venv", "--quiet", str(venv)], check=True)
    script = ROOT / "scripts" / "image" / "uv-install"
    done = subprocess.run(
        [str(script), "--torch", str(venv), str(tmp_path / "torch.lock")],
        env={
            "PATH": f"{UV.parent}:{os.environ['PATH']}",
            "SECRETS_DIR": str(tmp_path / "secrets"),
            "NO_PROXY": "127.0.0.1",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    installed = {path.name for path in venv.rglob("*.dist-info")}
    assert installed >= {
        "torch-2.10.0+cpu.dist-info",
        "typing_extensions-4.15.0.dist-info",
        "nvidia_cublas-12.1.dist-info",
    }


@pytest.mark.parametrize("words", [["apt-install"], ["uv-install", "/venv"], ["get-uv"]])
def test_each_says_how_it_is_called(kit, words):
    done, _ = kit(*words)
    assert done.returncode == 2
    assert done.stderr
