"""Machines of the tests: hosts with systemd in containers, and a network segment between them.

A host is reached over SSH, on a port of loopback, by an unprivileged user with sudo. Its engine is
its own. What is not a container's own is not touched: the segment's bridge leads nowhere else.
"""

from __future__ import annotations

import difflib
import functools
import ipaddress
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

import build
from conftest import free_port
from lib import ROOT, net, settings

# What is called here, and the package that has it.
TOOLS = {
    "docker": "docker.io",
    "git": "git",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "tar": "tar",
}
HERE = Path(__file__).resolve().parent
ANSIBLE = ROOT / "ansible"
PASSWORD_FILE = "become.yml"
# Where a host of each release stands with its network: what its installer would have set up.
NETWORKS = {"trixie": "", "bookworm": "ifupdown"}


def run(*words: str | Path, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, **more)
    if check and done.returncode:
        raise AssertionError(
            f"{' '.join(map(str, words))}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done


def docker(*words: str | Path, **more: Any) -> str:
    return run(shutil.which("docker") or "docker", *words, **more).stdout.strip()


@functools.cache
def image(suite: str) -> str:
    """The image of a host, made if it is not there."""
    base, tag = f"debian:{suite}-slim", f"ls-yolo-test/host:{suite}"
    build.ensure_base(base)
    values = settings.values()
    words = [
        "buildx", "build", "--load", "--quiet", "--tag", tag, "--provenance=false",
        "--builder", docker("context", "show") or "default",
        "--build-arg", f"BASE={base}", "--build-arg", f"NETWORK={NETWORKS[suite]}",
        "--build-context", f"kit={ROOT / 'scripts' / 'image'}",
        "--secret", f"id=mirrors,env={build.MIRRORS}",
    ]  # fmt: skip
    if bundle := net.certificates(values):
        words += ["--secret", f"id=ca,src={bundle}"]
    docker(*words, HERE, env={**os.environ, build.MIRRORS: build.mirrors_text(values)}, timeout=300)
    return tag


@dataclass(frozen=True)
class Segment:
    """A network that machines share as they would a switch; nothing leaves it."""

    subnet: str = "192.168.103.0/24"
    name: str = field(default_factory=lambda: f"ls-yolo-test-{secrets.token_hex(3)}")

    def taken(self) -> str:
        """The route of this machine that the segment would hide; empty if there is none."""
        wanted = ipaddress.ip_network(self.subnet)
        for route in json.loads(run("ip", "-json", "-4", "route").stdout):
            if route["dst"] != "default" and wanted.overlaps(ipaddress.ip_network(route["dst"])):
                return f"{route['dst']} dev {route.get('dev')}"
        return ""

    def create(self) -> None:
        # Addresses of containers come from the lower quarter, so that none gets one of the tests'.
        lower = next(ipaddress.ip_network(self.subnet).subnets(2))
        docker("network", "create", "--internal", "--subnet", self.subnet, "--ip-range", str(lower),
               self.name)  # fmt: skip

    def remove(self) -> None:
        docker("network", "rm", self.name, check=False)


@dataclass(frozen=True)
class Neighbour:
    """Another machine on the segment, with as many addresses as a test gives it."""

    segment: Segment
    address: str

    @property
    def name(self) -> str:
        return f"{self.segment.name}-{self.address.rpartition('.')[2]}"

    def start(self) -> None:
        docker("run", "--detach", "--name", self.name, "--network", self.segment.name,
               "--ip", self.address, "--cap-add", "NET_ADMIN", image("trixie"),
               "sleep", "infinity")  # fmt: skip

    def remove(self) -> None:
        docker("rm", "--force", "--volumes", self.name, check=False)

    def run(self, *words: str, check: bool = True) -> str:
        return docker("exec", self.name, *words, check=check)

    def add(self, address: str) -> None:
        self.run("ip", "address", "add", f"{address}/24", "dev", "eth0")

    def drop(self, address: str) -> None:
        self.run("ip", "address", "del", f"{address}/24", "dev", "eth0")

    def get(self, url: str, source: str = "") -> str:
        """Status of ``url``, or ``timeout`` or ``refused``, seen from ``source``."""
        return self.run("python3", "-c", GET, url, source or self.address)

    def serve(self, port: int) -> None:
        """A web server on this machine, for a minute."""
        words = ("timeout", "60", "python3", "-m", "http.server", str(port))
        docker("exec", "--detach", self.name, *words)
        end = time.monotonic() + 20
        while self.get(f"http://{self.address}:{port}/") != "200":
            assert time.monotonic() < end, "the web server does not start"


# Status of $1, asked from the address $2.
GET = """
import http.client, sys, urllib.parse
url = urllib.parse.urlsplit(sys.argv[1])
source = (sys.argv[2], 0) if sys.argv[2] else None
connection = http.client.HTTPConnection(url.hostname, url.port, timeout=4, source_address=source)
try:
    connection.request("GET", url.path or "/")
    print(connection.getresponse().status)
except TimeoutError:
    print("timeout")
except ConnectionRefusedError:
    print("refused")
except OSError as error:
    print(error.strerror)
"""


# Files with their times, packages, interfaces and rules: all that a playbook could have changed.
STATE = """
find / -xdev -path /home/owner/.ansible -prune -o -path /root/.ansible -prune \\
    -o -path /var/log -prune -o -path /var/lib/systemd -prune -o -path /var/lib/sudo -prune \\
    -o -path /tmp -prune -o -path /var/tmp -prune \\
    -o -name .sudo_as_admin_successful -prune -o -type f -printf '%p %s %T@ %m %u\\n' | sort
dpkg-query --show
ip -brief link
ip -brief address
ip route
find /etc/systemd/system -type l | sort
command -v nft >/dev/null && nft list ruleset
command -v docker >/dev/null && docker ps --all --quiet
true
"""
# A default route into a veth whose other end nobody has, and a resolver behind it, by addresses
# of documentation (RFC 5737). Without IPv6, whose own housekeeping would count.
CUT_OFF = """
set -e
ip link add out type veth peer name nowhere
echo 1 >/proc/sys/net/ipv6/conf/out/disable_ipv6
ip link set nowhere up
ip link set out up
ip address add 192.0.2.1/24 dev out
ip neighbour replace 192.0.2.254 lladdr 02:00:00:00:00:01 dev out
ip route replace default via 192.0.2.254 dev out
ip -6 route flush default
echo nameserver 198.51.100.53 >/etc/resolv.conf
"""
# Asks Label Studio for the URL $1 by the method $2, with the token that comes by stdin.
ASK_LABEL_STUDIO = """
import sys, urllib.request
request = urllib.request.Request(
    sys.argv[1], headers={"Authorization": "Token " + sys.stdin.read()}, method=sys.argv[2],
)
print(urllib.request.urlopen(request, timeout=60).read().decode() or "null")
"""


# Gives the engine whose data lie in $1 the image of the tag $2 and the id $3, of the engine whose
# data lie in /docker: its layers by hard links.
SHARE_IMAGE = """
import hashlib, json, pathlib, subprocess, sys
here, there, (tag, image) = pathlib.Path("/docker"), pathlib.Path(sys.argv[1]), sys.argv[2:]

def share(path):
    if not (there / path).exists():
        (there / path).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-al", here / path, there / path], check=True)

image_file = "image/overlay2/imagedb/content/" + image.replace(":", "/")
chain = ""
for layer in json.loads((here / image_file).read_text())["rootfs"]["diff_ids"]:
    names = (chain + " " + layer).strip()
    chain = "sha256:" + hashlib.sha256(names.encode()).hexdigest() if chain else layer
    entry = "image/overlay2/layerdb/" + chain.replace(":", "/")
    files = "overlay2/" + (here / entry / "cache-id").read_text()
    for part in (here / files).iterdir():
        if part.name not in ("merged", "work"):  # of whoever has it mounted now
            share(f"{files}/{part.name}")
    share("overlay2/l/" + (here / files / "link").read_text())
    share(entry)
share(image_file)
known = there / "image/overlay2/repositories.json"
found = json.loads(known.read_text())
found["Repositories"].setdefault(tag.rpartition(":")[0], {})[tag] = image
known.write_text(json.dumps(found))
"""


@dataclass(frozen=True)
class Outcome:
    """What a playbook did."""

    code: int
    output: str

    @property
    def counts(self) -> dict[str, int]:
        """The line of the recap: ok, changed, unreachable, failed, skipped, rescued, ignored."""
        recap = self.output.rpartition("PLAY RECAP")[2]
        return {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", recap)}

    @property
    def changed(self) -> list[str]:
        """The tasks that changed something."""
        found, task = [], ""
        for line in self.output.splitlines():
            if match := re.match(r"(?:TASK|RUNNING HANDLER) \[(.*)\]", line):
                task = match[1]
            elif line.startswith("changed: "):
                found.append(task)
        return found

    def message(self) -> str:
        """What a person reads at the end of a failure."""
        return self.output[self.output.rfind("TASK [") :]


def changes_of(tag: str) -> list[str]:
    """What an image says beside its files, as instructions of a Dockerfile."""
    (config,) = json.loads(docker("image", "inspect", "--format", "[{{json .Config}}]", tag))
    # Clients from 28 on leave out what an image does not set; older ones print null.
    lists = {name: config.get(key) for name, key in (("CMD", "Cmd"), ("ENTRYPOINT", "Entrypoint"))}
    env = dict(entry.split("=", 1) for entry in config.get("Env") or [])
    pairs = {"LABEL": config.get("Labels") or {}, "ENV": env}
    return [
        *(f"{name} {json.dumps(words)}" for name, words in lists.items() if words),
        *(f"{n} {k}={json.dumps(v)}" for n, found in pairs.items() for k, v in found.items()),
        *(f"EXPOSE {port}" for port in config.get("ExposedPorts") or {}),
        f"USER {config.get('User') or 'root'}",
        f"WORKDIR {config.get('WorkingDir') or '/'}",
    ]


@dataclass
class Machine:
    """A host with systemd, an engine of its own once installed, and an SSH server."""

    suite: str
    folder: Path
    engine_volume: str
    segment: Segment | None = None
    address: str = ""
    port: int = field(default_factory=free_port)
    name: str = field(default_factory=lambda: f"ls-yolo-test-{secrets.token_hex(3)}")
    password: str = field(default_factory=lambda: secrets.token_hex(12))
    kit: str = "/opt/ls-yolo"
    left_before: int = 0

    # Life

    def start(self) -> None:
        docker(
            "create", "--name", self.name, "--hostname", "gpu-host", "--privileged",
            "--cgroupns", "private", "--tmpfs", "/run", "--tmpfs", "/run/lock",
            "--env", "container=docker", "--volume", f"{self.engine_volume}:/var/lib/docker",
            "--volume", f"{self.engine_volume}-pipe:/pipe",
            "--publish", f"127.0.0.1:{self.port}:22", image(self.suite),
        )  # fmt: skip
        if self.segment:
            docker("network", "connect", "--ip", self.address, self.segment.name, self.name)
        self.trust_what_this_machine_trusts()
        docker("start", self.name)
        self.wait_until_booted()
        # Hashed quickly: a playbook asks sudo some hundred times.
        words = ("chpasswd", "--crypt-method", "SHA256", "--sha-rounds", "1000")
        self.root(*words, input=f"owner:{self.password}\n")
        self.let_in()

    def trust_what_this_machine_trusts(self) -> None:
        """A company's own authority, as its administrators put it on every host."""
        for file in Path("/usr/local/share/ca-certificates").glob("*.crt"):
            docker("cp", file, f"{self.name}:/usr/local/share/ca-certificates/{file.name}")

    def let_in(self) -> None:
        """A key made for this run, and the host's own key among those that ssh knows."""
        self.root("update-ca-certificates")
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / "key")
        self.root("install", "-d", "-m", "0700", "-o", "owner", "/home/owner/.ssh")
        self.root("sh", "-c", "cat >/home/owner/.ssh/authorized_keys",
                  input=(self.folder / "key.pub").read_text())  # fmt: skip
        key = self.root("cat", "/etc/ssh/ssh_host_ed25519_key.pub")
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {key}\n")
        secret = self.folder / PASSWORD_FILE
        secret.touch(mode=0o600)
        secret.write_text(yaml.safe_dump({"ansible_become_password": self.password}))

    def wait_until_booted(self) -> None:
        """Until every job of the start is done and SSH answers; services may have failed."""
        end = time.monotonic() + 120
        state = ""
        while time.monotonic() < end:
            state = self.root("systemctl", "is-system-running", "--wait", check=False)
            if state in ("running", "degraded"):
                # Packets may have to be smaller on their way than the bridge says. Who tells so may
                # have an address that the host's own engine takes: it would not be believed.
                self.root("ip", "link", "set", "dev", "eth0", "mtu", "1280")
                return
            time.sleep(0.5)
        raise AssertionError(f"{self.name} did not boot: {state}\n{docker('logs', self.name)}")

    def reboot(self) -> None:
        docker("restart", "--time", "60", self.name)
        self.wait_until_booted()

    def cut_off(self) -> None:
        """Takes the way out: until a reboot, what would leave ends at an interface that counts it.

        This machine and the segment are on the host's own links, and stay.
        """
        self.root("sh", "-c", CUT_OFF)
        before = self.left()
        self.root("getent", "hosts", "example.com", check=False)
        assert self.left() > before, "a lookup that leaves is not counted"
        self.left_before = self.left()

    def left(self) -> int:
        """How many packets would have left the host."""
        (found,) = json.loads(self.root("ip", "-json", "-statistics", "link", "show", "dev", "out"))
        return int(found["stats64"]["tx"]["packets"])

    def nothing_left(self) -> bool:
        """Whether nothing would have left since the host was cut off."""
        return self.left() == self.left_before

    def stop(self) -> None:
        docker("stop", "--time", "60", self.name)

    def remove(self) -> None:
        docker("rm", "--force", "--volumes", self.name, check=False)

    def share_image(self, tag: str) -> None:
        """An image of this machine for the engine of the host, which is restarted.

        Engines never write into an image's layers, so that both can have the same files.
        """
        drivers = {docker("info", "--format", "{{.Driver}}"),
                   self.root("docker", "info", "--format", "{{.Driver}}")}  # fmt: skip
        if drivers != {"overlay2"}:
            self.give_image(tag)
            return
        self.root("systemctl", "stop", "docker.socket", "docker")
        docker(
            "run", "--rm", "--interactive", "--privileged", "--network", "none",
            "--volume", f"{docker('info', '--format', '{{.DockerRootDir}}')}:/docker",
            image(self.suite), "python3", "-", f"/docker/volumes/{self.engine_volume}/_data", tag,
            docker("image", "inspect", "--format", "{{.Id}}", tag), input=SHARE_IMAGE,
        )  # fmt: skip
        self.root("systemctl", "start", "docker.socket", "docker")

    def give_image(self, tag: str) -> None:
        """An image of this machine, with its files in one layer, for the engine of the host.

        Through a pipe in a volume of both: ``docker save`` and ``docker load`` would each lay a
        copy of gigabytes aside, and what passes by this machine's engine is slow.
        """
        pipe = "/pipe/image.tar"
        self.root("sh", "-c", f"test -p {pipe} || mkfifo {pipe}")
        sender = docker(
            "run", "--detach", "--network", "none", "--user", "0:0", "--entrypoint", "tar",
            "--volume", f"{self.engine_volume}-pipe:/pipe", tag, "--create", "--file", pipe,
            "--directory", "/", "--one-file-system", "--exclude", "./pipe/*", "--blocking-factor",
            "512", ".",
        )  # fmt: skip
        try:
            changes = [word for change in changes_of(tag) for word in ("--change", change)]
            self.root("docker", "import", *changes, pipe, tag)
        finally:
            docker("rm", "--force", sender)

    # Commands on it

    def root(self, *words: str, input: str | None = None, check: bool = True) -> str:
        """A command on the host as root, past SSH: for what the tests look at and prepare."""
        interactive = ["--interactive"] if input is not None else []
        return docker("exec", *interactive, self.name, *words, input=input, check=check)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Fails if a file, a package, an interface or a rule of the firewall is not as before."""
        before = self.state()
        yield
        after = self.state()
        assert after == before, "\n".join(
            difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
        )

    def state(self) -> str:
        return self.root("sh", "-c", STATE)

    def write(self, path: str, text: str, mode: str = "0644") -> None:
        self.root("install", "-m", mode, "/dev/stdin", path, input=text)

    def has(self, path: str) -> bool:
        return self.root("sh", "-c", 'test -e "$1" && echo yes; true', "sh", path) == "yes"

    def get(self, url: str) -> str:
        """Status of ``url``, seen from the host itself."""
        return self.root("python3", "-c", GET, url, "")

    # What runs on it

    def settings(self) -> dict[str, str]:
        """The host's .env."""
        return settings.parse_env(self.root("cat", f"{self.kit}/.env"))

    def label_studio(self, path: str, method: str = "GET") -> Any:
        """What Label Studio's API answers its first user on the host's loopback."""
        settings = self.settings()
        url = f"http://127.0.0.1:{settings['LABEL_STUDIO_PORT']}{path}"
        words = ("python3", "-c", ASK_LABEL_STUDIO, url, method)
        return json.loads(self.root(*words, input=settings["LABEL_STUDIO_API_KEY"]))

    def tasks(self) -> set[int]:
        """All tasks of Label Studio."""
        return {
            task["id"]
            for project in self.label_studio("/api/projects/")["results"]
            for task in self.label_studio(f"/api/tasks?project={project['id']}")["tasks"]
        }

    def predicted(self) -> set[int]:
        """The tasks that have a stored prediction with at least one box."""
        return {p["task"] for p in self.label_studio("/api/predictions/") if p["result"]}

    def container_of(self, service: str) -> str:
        label = f"label=com.docker.compose.service={service}"
        return self.root("docker", "ps", "--quiet", "--filter", label)

    def container(self, service: str, *words: str) -> str:
        """What a command prints inside a service's container."""
        return self.root("docker", "exec", self.container_of(service), *words)

    def inside(self, service: str, url: str) -> str:
        """Status of ``url``, seen from inside a service's container."""
        return self.container(service, "python3", "-c", GET, url, "")

    def inspect(self, service: str) -> Any:
        (found,) = json.loads(self.root("docker", "inspect", self.container_of(service)))
        return found

    def default_gateway(self, service: str) -> str:
        """Where a container sends what is for no network of its own."""
        for line in self.container(service, "cat", "/proc/net/route").splitlines():
            _, target, gateway, *_ = line.split()
            if target == "00000000":
                return str(ipaddress.ip_address(bytes.fromhex(gateway)[::-1]))
        return ""

    def services(self) -> dict[str, str]:
        """State and health of the containers, by service."""
        label = '{{.Label "com.docker.compose.service"}}'
        lines = self.root("docker", "ps", "--format", f"{label} {{{{.Status}}}}", check=False)
        return dict(line.split(" ", 1) for line in lines.splitlines())

    def wait_until_healthy(self, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.services()
            if len(found) == 2 and all("(healthy)" in state for state in found.values()):
                return
            time.sleep(1)
        raise AssertionError(f"not healthy after {seconds} seconds: {self.services()}")

    @property
    def log(self) -> Path:
        """What the playbooks have printed."""
        return self.folder / "playbooks.log"

    @cached_property
    def ssh_options(self) -> list[str]:
        return [
            "-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}",
            "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes",
        ]  # fmt: skip

    def playbook(self, name: str, *words: str, variables: dict[str, Any] | None = None) -> Outcome:
        """Runs a playbook of the kit from this machine, as docs/host.md tells, over SSH."""
        host = {
            "ansible_host": "127.0.0.1",
            "ansible_port": self.port,
            "ansible_user": "owner",
            "ansible_ssh_private_key_file": str(self.folder / "key"),
            "ansible_ssh_common_args": " ".join(self.ssh_options),
        }
        inventory = self.folder / "inventory.yml"
        inventory.write_text(
            yaml.safe_dump({"ls_yolo": {"hosts": {"gpu-host": {**host, **(variables or {})}}}})
        )
        program = Path(sys.executable).with_name("ansible-playbook")
        done = run(
            program, "-i", inventory, "-e", f"@{self.folder / PASSWORD_FILE}", *words,
            ANSIBLE / "playbooks" / name,
            cwd=ANSIBLE, check=False, timeout=900,
            env={
                **os.environ,
                "ANSIBLE_HOME": str(self.folder / "home"),
                "ANSIBLE_NOCOLOR": "1",
                # A machine that tests are run on can be busy.
                "ANSIBLE_TIMEOUT": "60",
                "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "0",
                "LC_ALL": "C.UTF-8",
            },
        )  # fmt: skip
        outcome = Outcome(done.returncode, done.stdout + done.stderr)
        with self.log.open("a") as log:
            log.write(f"\n$ {name} {' '.join(map(str, words))}\n{outcome.output}")
        return outcome
