"""Runs a command as a newcomer would, in a clean clone on a Debian that never saw the project.

    bare [bookworm|trixie] [COMMAND]

Without COMMAND: linters, unit tests, and what every other suite installs before it starts. What is
committed counts. The machine is a privileged container with Python, make and git and nothing else,
its own engine's disk, and no init system. It is given this machine's certificate authorities and
what its environment says of proxies and mirrors. It goes when the command ends; KEEP=1 leaves it.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import build
from lib import ROOT, commands, docker
from lib.cli import run_main, say

SUITES = ("bookworm", "trixie")
COMMAND = "make test-lint test-unit test-integration-setup test-kubernetes-setup test-host-setup"
AUTHORITIES = Path("/usr/local/share/ca-certificates")
GIVEN = ("APT_MIRROR", "PIP_INDEX_URL", "GOPROXY", *build.PROXIES, *map(str.lower, build.PROXIES))
PREPARE = """\
set -eu
export DEBIAN_FRONTEND=noninteractive
[ -z "${APT_MIRROR:-}" ] ||
	sed -i "s|http://deb.debian.org/debian|$APT_MIRROR|" /etc/apt/sources.list.d/debian.sources
apt-get -qq update
apt-get -qq install -y --no-install-recommends ca-certificates git make python3 >/dev/null
update-ca-certificates >/dev/null 2>&1
git -c safe.directory='*' clone -q /source.git /root/ls-yolo
"""


def machine(suite: str, name: str) -> list[str]:
    """The command line that starts the machine."""
    folder = commands.output(["git", "-C", str(ROOT), "rev-parse", "--git-common-dir"]) or ".git"
    return [
        docker.client(), "run", "--detach", "--name", name, "--privileged", "--tmpfs", "/run",
        "--shm-size", "1g", "--volume", "/var/lib/docker", "--volume", "/var/lib/containerd",
        "--volume", f"{(ROOT / folder).resolve()}:/source.git:ro",
        *(word for given in GIVEN if os.environ.get(given) for word in ("--env", given)),
        f"debian:{suite}-slim", "sleep", "infinity",
    ]  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    named = bool(arguments) and arguments[0] in SUITES
    suite = arguments[0] if named else "trixie"
    command = " ".join(arguments[named:]) or COMMAND
    build.ensure_base(f"debian:{suite}-slim")
    name = f"ls-yolo-bare-{suite}-{secrets.token_hex(3)}"
    inside = [docker.client(), "exec", "--workdir", "/root", name]
    say(f"{name}: {command}")
    try:
        commands.run(machine(suite, name), stdout=subprocess.DEVNULL)
        if AUTHORITIES.is_dir():
            commands.run(
                [docker.client(), "cp", "--quiet", f"{AUTHORITIES}/.", f"{name}:{AUTHORITIES}"]
            )
        commands.run([*inside, "sh", "-c", PREPARE])
        words = ["env", "-C", "ls-yolo", "LS_YOLO_NO_SKIPS=1", "sh", "-c", command]
        return subprocess.run([*inside, *words]).returncode
    finally:
        if os.environ.get("KEEP"):
            say(f"{name} is left there: docker exec -it {name} bash; docker rm -fv {name}")
        else:
            commands.output([docker.client(), "rm", "--force", "--volumes", name], 60)


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
