"""Packages of Debian and Ubuntu for hosts of other suites, fetched by apt in a container.

What is fetched is all that a system needs on which nothing is installed: whoever has a part of it
already keeps that. apt checks every signature.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from host import apt
from lib import ROOT, commands, docker, net
from lib.cli import UserError

UBUNTU_MIRROR = "http://archive.ubuntu.com/ubuntu"
KEYRINGS = {
    "debian": "/usr/share/keyrings/debian-archive-keyring.gpg",
    "ubuntu": "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
}
# A container that is left behind when this is killed ends by itself.
LONGEST = "3600"
CERTIFICATES = "/ca.crt"


@dataclass(frozen=True)
class Suite:
    """A release by its family and code name."""

    family: str
    codename: str

    def sources(self, mirror: str) -> str:
        """Its sources in the form of apt's .sources files."""
        codename = self.codename
        stanza = (
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: {}\n"
            f"Signed-By: {KEYRINGS[self.family]}\n\n"
        )
        if self.family == "ubuntu":
            suites = f"{codename} {codename}-updates {codename}-security"
            return stanza.format(mirror, suites, "main universe")
        return stanza.format(mirror, f"{codename} {codename}-updates", "main") + stanza.format(
            f"{mirror}-security", f"{codename}-security", "main"
        )


SUITES = (Suite("debian", "bookworm"), Suite("debian", "trixie"), Suite("ubuntu", "noble"))


class Apt:
    """apt for one suite, with a state of its own: in the container's eyes nothing is installed."""

    def __init__(self, inside: list[str], suite: Suite) -> None:
        self.inside, self.suite, self.folder = inside, suite, f"/suites/{suite.codename}"
        words = {
            "Dir::Etc::sourcelist": "-",
            "Dir::Etc::sourceparts": f"{self.folder}/sources",
            "Dir::Etc::preferences": f"{self.folder}/preferences",
            "Dir::State": f"{self.folder}/state",
            "Dir::State::status": f"{self.folder}/status",
            "Dir::Cache": f"{self.folder}/cache",
            "Dir::Cache::archives": f"/packages/{suite.codename}",
            "APT::Sandbox::User": "root",
            "APT::Get::AllowUnauthenticated": "false",
            "APT::Update::Error-Mode": "any",
            "Acquire::Retries": "3",
            "Acquire::https::CaInfo": CERTIFICATES,
        }
        self.options = [word for pair in words.items() for word in ("-o", "=".join(pair))]
        self.shell(
            f"mkdir -p {self.folder}/state/lists/partial {self.folder}/cache {self.folder}/sources "
            f"&& touch {self.folder}/status"
        )

    def shell(self, script: str, stdin: str = "") -> str:
        """
        Raises:
            UserError: it failed, with its own words.
        """
        done = subprocess.run(
            [*self.inside, "sh", "-c", script], input=stdin, capture_output=True, text=True
        )
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise UserError(said[-1] if said else f"exit code {done.returncode}")
        return done.stdout

    def write(self, path: str, text: str) -> None:
        self.shell(f'mkdir -p "$(dirname {path})" && cat >{path}', text)

    def run(self, program: str, *words: str) -> str:
        done = subprocess.run(
            [*self.inside, program, *self.options, *words], capture_output=True, text=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            faults = [line for line in done.stderr.splitlines() if line.startswith("E: ")]
            raise UserError(faults[0].removeprefix("E: ") if faults else done.stderr.strip())
        return done.stdout

    def add(self, name: str, sources: str) -> None:
        """Adds sources, which must answer.

        Raises:
            UserError: they do not.
        """
        self.write(f"{self.folder}/sources/{name}.sources", sources)
        self.run("apt-get", "-qq", "update")

    def candidates(self, *names: str) -> dict[str, str]:
        return apt.parse_policy(self.run("apt-cache", "policy", *names))

    def unpack(self, name: str) -> None:
        """Has the files of a package in the container, without what it needs."""
        words = shlex.join(["apt-get", "-qq", *self.options, "download", name])
        self.shell(f"cd {self.folder} && {words} && dpkg-deb -x {name}_*.deb /")

    def prefer(self, pin: str) -> None:
        self.write(f"{self.folder}/preferences", pin)

    def fetch(self, names: list[str]) -> None:
        """Fetches packages and all that they need, and writes an index of them.

        Raises:
            UserError: one cannot be had.
        """
        folder = f"/packages/{self.suite.codename}"
        self.shell(f"mkdir -p {folder}/partial")
        self.run("apt-get", "-qq", "autoclean")  # what an earlier run fetched and is outdated now
        self.run("apt-get", "-qq", "-y", "--no-install-recommends", "--download-only", "install",
                 *names)  # fmt: skip
        self.shell(f"rm -rf {folder}/lock {folder}/partial")
        index = self.shell(f"sh -s {folder} index", (ROOT / "scripts" / "apt-only").read_text())
        self.write(f"{folder}/Packages", index)


@contextlib.contextmanager
def container(image: str, packages: Path, values: Mapping[str, str]) -> Iterator[list[str]]:
    """A container that packages are fetched in; what to put before a command there.

    packages: the folder that gets a folder for each suite.
    """
    name = f"ls-yolo-packages-{secrets.token_hex(3)}"
    packages.mkdir(parents=True, exist_ok=True)
    words = ["--volume", f"{packages}:/packages"]
    if bundle := net.certificates(values):
        words += ["--volume", f"{bundle}:{CERTIFICATES}:ro"]
    for proxy in ("http_proxy", "https_proxy", "no_proxy"):
        if os.environ.get(proxy):
            words += ["--env", proxy]
    commands.run(
        [docker.client(), "run", "--rm", "--detach", "--name", name, *words, image,
         "sleep", LONGEST],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    inside = [docker.client(), "exec", "--interactive", name]
    try:
        yield inside
    finally:
        owner = f"{os.getuid()}:{os.getgid()}"
        commands.output([*inside, "chown", "-R", owner, "/packages"], 60)
        commands.output([docker.client(), "rm", "--force", name], 60)
