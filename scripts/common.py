"""What the scripts share: where things are, settings, versions, commands.

Only the standard library is used, and nothing newer than Python 3.11: a bare Debian 12 has no more.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
# Tests have a .env of their own, beside the one of whoever runs them.
ENV_FILE = Path(os.environ.get("LS_YOLO_ENV_FILE") or ROOT / ".env").absolute()
MINIMUMS_FILE = ROOT / "scripts" / "minimums.yml"
HOST_CA = Path("/etc/ssl/certs/ca-certificates.crt")
CPU_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
DEBIAN_MIRROR = "http://deb.debian.org/debian"


class Failure(Exception):
    """Something that a person must put right; the text says what was found and what to do."""


def say(text: str = "") -> None:
    """Prints at once, so that our lines and those of the commands we run stay in order."""
    print(text, flush=True)


def run_main(main: Callable[[], int]) -> NoReturn:
    """Runs a script's ``main``; a failure is a message and exit code 1, never a traceback."""
    try:
        code = main()
    except Failure as failure:
        say_error(str(failure))
        code = 1
    except PermissionError as error:
        say_error(
            f"{error.filename}: permission denied. If an earlier run with sudo made it: "
            f'sudo chown -R "$USER" {shlex.quote(str(error.filename))}'
        )
        code = 1
    except BrokenPipeError:  # whoever read our output has gone: make up | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except KeyboardInterrupt:
        say_error("stopped; it is safe to run the same command again")
        code = 130
    raise SystemExit(code)


def say_error(text: str) -> None:
    sys.stdout.flush()
    print(f"error: {text}", file=sys.stderr, flush=True)


# Versions and minimums


def version_of(text: str) -> tuple[int, ...]:
    """The numbers of the first version in ``text``; empty if there is none.

    ``"Docker Compose version v2.26.1-4"`` and ``"5:26.1.5+dfsg1-9"`` (an epoch before the colon)
    are both understood.
    """
    text = re.sub(r"(^|\s)\d+:(?=\d)", r"\1", text)
    found = re.search(r"(?<![\w.])v?(\d+(?:\.\d+)+|\d+)", text)
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()


def at_least(found: str, needed: str) -> bool:
    """Whether version ``found`` is ``needed`` or later; missing parts count as zero."""
    have, want = version_of(found), version_of(needed)
    width = max(len(have), len(want))
    return bool(have) and have + (0,) * (width - len(have)) >= want + (0,) * (width - len(want))


def parse_minimums(text: str) -> dict[str, str]:
    """A flat YAML file of ``name: value`` lines, without a YAML parser, which a bare host lacks."""
    minimums = {}
    for number, line in enumerate(text.splitlines(), 1):
        content = line.split("#", 1)[0].strip()
        if not content:
            continue
        match = re.fullmatch(r"""([a-z_]+): +("?)([0-9.]+)\2""", content)
        if not match:
            raise Failure(
                f"minimums.yml line {number}: found {line!r}, expected a name and a number: "
                'compose: "2.26.1"'
            )
        minimums[match[1]] = match[3]
    return minimums


def minimums() -> dict[str, str]:
    return parse_minimums(MINIMUMS_FILE.read_text())


# Settings


@functools.cache
def settings() -> tuple[dict[str, Any], ...]:
    """Every setting, from the one list that the backend keeps."""
    done = subprocess.run(
        [sys.executable, "-m", "ls_yolo.settings", "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "backend"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Failure(f"cannot read the list of settings:\n{done.stderr.strip()}")
    return tuple(json.loads(done.stdout))


_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]*")
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")


def quote_env(value: str) -> str:
    """``value`` as ``.env`` must spell it for Compose and ``parse_env`` to read the same back."""
    if "\n" in value or "\r" in value or "\0" in value:
        raise Failure("a value of .env cannot hold a line break")
    if _PLAIN.fullmatch(value):
        return value
    if "'" not in value and not value.endswith("\\"):
        return f"'{value}'"  # nothing is special between single quotes
    return '"' + re.sub(r'(["\\$])', r"\\\1", value) + '"'


def parse_env(text: str) -> dict[str, str]:
    """The values of an ``.env`` file, read as Compose reads them (without references: ``${X}``)."""
    values = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if not match:
            continue
        name, value = match.groups()
        if inside := re.match(r"'((?:[^'\\]|\\.)*)'", value):
            value = inside[1].replace("\\'", "'")
        elif inside := re.match(r'"((?:[^"\\]|\\.)*)"', value):
            value = re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), inside[1])
        else:
            value = re.sub(r"(^|\s+)#.*", "", value).strip()
        values[name] = value
    return values


def references(text: str) -> list[str]:
    """The names in an ``.env`` file whose values Compose would change for a ``$`` in them."""
    names = []
    for line in text.splitlines():
        if not (match := _LINE.fullmatch(line)):
            continue
        name, value = match.groups()
        if value.startswith("'"):
            continue  # nothing is special between single quotes
        if value.startswith('"'):
            value = re.sub(r"\\.", "", value)  # \$ is the sign itself, but only between these
        else:
            value = re.sub(r"(^|\s+)#.*", "", value)
        if re.search(r"\$[A-Za-z_{$]", value):
            names.append(name)
    return names


def env_text(path: Path | None = None) -> str:
    """What ``.env`` says; nothing where there is none."""
    path = path or ENV_FILE
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
    except PermissionError:
        raise not_ours(path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{path} cannot be read as text: {error}") from None


def not_ours(path: Path) -> Failure:
    return Failure(
        f"{path} belongs to another user, as after sudo make up. "
        f'Run: sudo chown "$USER" {shlex.quote(str(path))}'
    )


# Set but empty means "not set", as in Compose's ${X:-default}. Not for these: it turns
# authentication off.
MAY_BE_EMPTY = ("BASIC_AUTH_USER", "BASIC_AUTH_PASS")


def is_given(name: str, layer: Mapping[str, str]) -> bool:
    """Whether the environment or ``.env`` sets the setting."""
    return bool(layer.get(name, "").strip()) or (name in MAY_BE_EMPTY and name in layer)


def values(
    environ: Mapping[str, str] | None = None, env_file: Path | None = None
) -> dict[str, str]:
    """Every setting's value: the environment first, then ``.env``, then the default."""
    layers = [os.environ if environ is None else environ, parse_env(env_text(env_file))]
    return {
        name: next((layer[name] for layer in layers if is_given(name, layer)), setting["default"])
        for setting in settings()
        for name in [setting["name"]]
    }


def enabled(values: Mapping[str, str], name: str) -> bool:
    """Whether a setting of type bool says yes; what is neither yes nor no is told elsewhere."""
    return values[name].strip().lower() in ("1", "true", "yes", "on")


def host_path(value: str) -> Path:
    """A path of the settings: from the repository's root where it is relative, as in Compose."""
    return (ROOT / Path(value).expanduser()).resolve()


def project_version() -> str:
    return (ROOT / "VERSION").read_text().strip()


def images() -> dict[str, str]:
    """The two images: the folder that each is built from, and its tag."""
    version = project_version()
    return {name: f"ls-yolo/{name}:{version}" for name in ("label-studio", "backend")}


# Built or pulled where it is asked for. Its name has the major version that the data are of.
POSTGRES_IMAGE = "ls-yolo/postgres:17"


# Commands


def output(command: Sequence[str], timeout: float = 20) -> str | None:
    """What ``command`` prints, stripped; None if it is missing, fails or takes too long."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def docker_clients() -> list[str]:
    """Every docker client, in the order of the PATH; Debian's own may be hidden by an older one."""
    folders = [*os.environ.get("PATH", os.defpath).split(os.pathsep), "/usr/bin", "/usr/local/bin"]
    found = (shutil.which("docker", path=folder) for folder in folders if folder)
    unique: dict[Path, str] = {}
    for client in found:
        if client:
            unique.setdefault(Path(client).resolve(), client)
    return list(unique.values())


def choose_client(clients: Sequence[str], ask: Callable[[Sequence[str]], str | None]) -> str | None:
    """The first client that has compose and buildx and is new enough, else the first."""
    for client in clients:
        version = ask([client, "version", "--format", "{{.Client.Version}}"])
        # An old client prints its version although no engine answers, but exits non-zero.
        version = version or ask([client, "--version"]) or ""
        if (
            at_least(version, minimums()["docker_engine"])
            and ask([client, "compose", "version"]) is not None
            and ask([client, "buildx", "version"]) is not None
        ):
            return client
    return clients[0] if clients else None


_client: str | None = None


def docker() -> str:
    """The docker client to use. Asked again until there is one: it may be installed meanwhile."""
    global _client
    if _client is None:
        _client = choose_client(docker_clients(), output)
        if _client is None:
            raise Failure("no docker client was found. Run: python3 scripts/install_engine.py")
    return _client


def forget_docker() -> None:
    """After an installation: look for the client again."""
    global _client
    _client = None


def as_root() -> list[str]:
    """What to put before a command that only root may run.

    Raises:
        Failure: neither root nor a way to become root.
    """
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo"):
        if output(["sudo", "-n", "true"]) is not None:
            return ["sudo", "-n"]
        if sys.stdin.isatty():
            return ["sudo"]
    raise Failure(
        f"root is needed, and user {os.environ.get('USER', os.geteuid())} has no sudo that works "
        "without a terminal. Run the same command as root, or in a terminal as a user with sudo"
    )


def may_become_root() -> bool:
    try:
        as_root()
    except Failure:
        return False
    return True


def run(command: Sequence[str], **more: Any) -> None:
    """Runs ``command`` with its output shown.

    Raises:
        Failure: it is missing or failed.
    """
    try:
        done = subprocess.run(command, **more)
    except OSError as error:
        raise Failure(f"cannot run {command[0]}: {error.strerror}") from error
    if done.returncode:
        raise Failure(f"exit code {done.returncode} from: {' '.join(command)}")


# Network


def tls_context(ca_bundle: str = "") -> ssl.SSLContext:
    """Certificates to trust: CA_BUNDLE, else SSL_CERT_FILE, else the host's own."""
    if ca_bundle:
        path = host_path(ca_bundle)
        if not path.is_file():
            raise Failure(f"CA_BUNDLE: found no file {path}. Correct it in .env")
        return ssl.create_default_context(cafile=str(path))
    return ssl.create_default_context()


def split_login(url: str) -> tuple[str, str, str]:
    """``url`` without its login, which must not be shown; and user and password, decoded."""
    parts = urllib.parse.urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, "", ""
    user, _, password = map(urllib.parse.unquote, login.partition(":"))
    return urllib.parse.urlunsplit(parts._replace(netloc=host)), user, password


def without_password(url: str) -> str:
    return split_login(url)[0]


def with_login_of(known: str, url: str) -> str:
    """``url`` with the login of ``known`` if it leads to the same host, and to no other."""
    one, other = urllib.parse.urlsplit(known), urllib.parse.urlsplit(url)
    login, at, host = one.netloc.rpartition("@")
    if not at or (one.scheme, host) != (other.scheme, other.netloc):
        return url
    return urllib.parse.urlunsplit(other._replace(netloc=f"{login}@{host}"))


def fetch(url: str, timeout: float = 30, ca_bundle: str = "", accept: str = "*/*") -> Any:
    """An open response to ``url``; proxies of the environment are used."""
    url, user, password = split_login(url)
    request = urllib.request.Request(url, headers={"Accept": accept, "User-Agent": "ls-yolo"})
    if user:
        login = base64.b64encode(f"{user}:{password}".encode()).decode()
        # Not sent on to where a redirection leads.
        request.add_unredirected_header("Authorization", f"Basic {login}")
    context = tls_context(ca_bundle) if url.startswith("https:") else None
    return urllib.request.urlopen(request, timeout=timeout, context=context)


def answers(url: str, timeout: float = 5, ca_bundle: str = "") -> bool:
    """Whether ``url`` can be fetched within ``timeout`` seconds."""
    try:
        with fetch(url, timeout, ca_bundle) as response:
            return bool(200 <= response.status < 300)
    except (OSError, ValueError):
        return False
