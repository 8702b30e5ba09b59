"""`make support` of services that run: secrets are planted everywhere, and none is in it."""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from conftest import ROOT, Stack

pytestmark = pytest.mark.docker


def test_secrets_of_every_place_are_in_no_member(stack: Stack, demo: Any, tmp_path: Path) -> None:
    def new(place: str) -> str:
        planted[place] = f"{secrets.token_hex(8)}/{secrets.token_hex(4)}"
        return planted[place]

    planted = {name: stack.env[name] for name in
               ("LABEL_STUDIO_PASSWORD", "LABEL_STUDIO_API_KEY", "BASIC_AUTH_PASS")}  # fmt: skip
    projects = stack.folder / "projects"
    (projects / "secrets.env").write_text(f"S3_SECRET={new('secrets.env')}\n")
    (projects / "planted.yaml").write_text(
        f"title: planted\nwebhooks: [{{url: 'https://me:{quote(new('url'), safe='')}@b', headers: "
        f"{{X: {new('header')}}}}}]\nsource_storages:\n- secret_access_key: {new('storage')}\n"
    )
    lines = [
        f"Authorization: Token {new('token')}",
        f"Cookie: sessionid={new('cookie')}; theme=dark",
        f"GET /a.jpg?X-Amz-Signature={quote(new('signature'), safe='')}&x=1",
        f"proxy http://me:{quote(new('log'), safe='')}@proxy",
        *(f"plain {secret}" for secret in planted.values() if secret in stack.env.values()),
        f"quoted {quote(planted['secrets.env'], safe='')}",
        "basic " + base64.b64encode(f"me:{planted['BASIC_AUTH_PASS']}".encode()).decode(),
        "the last line",
    ]
    for service in ("label-studio", "backend"):
        # What a service itself prints goes there.
        code, output = stack.container(service).exec_run(
            ["python3", "-c", "import sys; open('/proc/1/fd/1', 'w').write(sys.argv[1])",
             "\n".join(lines) + "\n"]
        )  # fmt: skip
        assert code == 0, output.decode()
    try:
        done = subprocess.run(
            [sys.executable, "scripts/support.py", "--to", str(tmp_path)], cwd=ROOT, text=True,
            capture_output=True, timeout=300,
            env={**os.environ, "LS_YOLO_ENV_FILE": str(stack.env_file),
                 "PIP_INDEX_URL": f"https://me:{quote(new('environment'), safe='')}@pypi/simple"},
        )  # fmt: skip
    finally:
        for name in ("secrets.env", "planted.yaml"):
            (projects / name).unlink()
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = tmp_path.iterdir()
    found = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            data = tar.extractfile(member)
            assert data is not None
            found[member.name.partition("/")[2]] = data.read().decode()
    for place, secret in planted.items():
        for text in (secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode()):
            assert [name for name, content in found.items() if text in content] == [], place
            assert text not in done.stdout, place
    # Nor is it empty: what helps is there.
    for service in ("label-studio", "backend"):
        assert "the last line" in found[f"logs/{stack.container(service).name}.log"]
        assert f"/{stack.container(service).name}" in found["containers.txt"]
    assert '"status"' in found["backend/health.txt"]
    assert "ls_yolo_" in found["backend/metrics.txt"]
    assert "latency" in found["doctor.txt"]
    assert "title: planted" in found["projects/planted.yaml"]
