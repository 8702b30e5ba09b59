"""apt on this host: what it would install, from where, and the commands that change the host."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from lib import ROOT, commands, net, settings
from lib.cli import UserError, say


def parse_policy(text: str) -> dict[str, str]:
    """Candidates in the output of ``apt-cache policy``."""
    found, package = {}, ""
    for line in text.splitlines():
        if line and not line[0].isspace():
            package = line.rstrip(":")
        elif (match := re.match(r"\s+Candidate: (\S+)", line)) and match[1] != "(none)":
            found[package] = match[1]
    return found


def mirror_of(sources: str) -> str:
    """The Debian mirror that a host's apt sources name; empty if none is found."""
    found = re.findall(r"(https?://\S+?/debian)/?(?=\s|$)", re.sub(r"(?m)^\s*#.*$", "", sources))
    return str(found[0]) if found else ""


class Host:
    """The commands that change this host; every one is shown before it runs."""

    def __init__(self, packages: Path | None = None) -> None:
        """packages: a folder of .deb files that apt takes in place of the host's sources."""
        self.root = commands.as_root()
        self.alone = [str(ROOT / "scripts" / "apt-only"), str(packages)] if packages else []

    def run(self, *command: str, check: bool = True) -> bool:
        say("  # " + " ".join(command))
        environment = ["env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"]
        done = subprocess.run([*self.root, *environment, *command], stdin=subprocess.DEVNULL)
        if done.returncode and check:
            raise UserError(
                f"exit code {done.returncode} from: {' '.join(command)}. The lines above say why; "
                "it is safe to run this again"
            )
        return done.returncode == 0

    def apt(self, *words: str, check: bool = True) -> bool:
        # Another apt (unattended upgrades) may be at work for some minutes: wait for it.
        options = [
            "-qq",
            "-o",
            "Dpkg::Use-Pty=0",
            "-o",
            "DPkg::Lock::Timeout=300",
            "-o",
            "Acquire::Retries=3",
        ]
        return self.run(*self.alone, "apt-get", *options, *words, check=check)

    def candidates(self, *names: str) -> dict[str, str]:
        """The versions of packages that would be installed."""
        command = [*self.root, *self.alone, "apt-cache", "policy", *names]
        return parse_policy(commands.output(command) or "")

    def write(self, path: Path, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            self.run("install", "-D", "-m", "0644", file.name, str(path))


def sources() -> str:
    folder = Path("/etc/apt/sources.list.d")
    files = [Path("/etc/apt/sources.list"), *folder.glob("*.sources"), *folder.glob("*.list")]
    return "\n".join(file.read_text(errors="replace") for file in files if file.is_file())


def debian_mirror() -> str:
    """APT_MIRROR, else what this host's apt uses itself, else Debian's own."""
    chosen = settings.values()["APT_MIRROR"].rstrip("/")
    return chosen or mirror_of(sources()) or net.DEBIAN_MIRROR
