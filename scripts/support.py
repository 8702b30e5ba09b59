#!/usr/bin/env python3
"""`make support`: one archive for asking for help, without secrets. Nothing is sent anywhere.

    support.py [--to DIR]

Versions, settings, logs, what pre-flight and doctor say. What cannot be had is said in its place.
Before the archive has its name, all of it is searched for every secret that is known.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tarfile
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from host import cuda, docker_engine, system
from lib import ROOT, backups, commands, docker, files, git, settings, versions
from lib.cli import UserError, run_main, say
from lib.progress import readable

sys.path.append(str(ROOT / "backend"))
from ls_yolo import redaction  # the standard library alone

NAME = "ls-yolo-support"
FOLDER = ROOT / "support"
LINES = 2000
"""Of each container's log."""
MOST = 4 << 20
"""Characters of a member, its last ones."""
SECONDS, DOCTOR_SECONDS = 60, 300
PROJECT_SECRETS = "PROJECT_SECRETS"
FACTS = """{{.Name}}
  image     {{.Config.Image}} {{.Image}}
  state     {{json .State}}
  restarts  {{.RestartCount}}
  memory    {{.HostConfig.Memory}}
  mounts    {{json .Mounts}}
  networks  {{json .NetworkSettings.Networks}}"""
# From inside, with what the container has: no password is on a command line or a network.
ASK = """
import base64, os, sys, urllib.request
login = os.environ["BASIC_AUTH_USER"] + ":" + os.environ["BASIC_AUTH_PASS"]
request = urllib.request.Request("http://127.0.0.1:9090" + sys.argv[1])
request.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
print(urllib.request.urlopen(request, timeout=10).read().decode())
"""

Ask = Callable[[], str]


# Secrets


def known_secrets(layers: Iterable[Mapping[str, str]], projects: str) -> set[str]:
    """Every secret that is known here.

    Args:
        layers: names and values: of ``.env``, of the environment, of containers.
        projects: the text of the projects' ``secrets.env``.
    """
    declared = {s["name"]: s["secret"] for s in settings.declared()}
    declared |= {s["renamed_from"]: s["secret"] for s in settings.declared() if s["renamed_from"]}
    found = set(lines_of(projects))
    for layer in layers:
        for name, value in layer.items():
            if declared.get(name, redaction.is_name(name)):
                found |= {value, value.strip()}
            if name == PROJECT_SECRETS:
                found.update(lines_of(value))
            for login in re.findall(r"://([^/?#\s'\"]*)@", value):
                user, colon, password = login.partition(":")
                secret = password if colon else user
                found |= {secret, urllib.parse.unquote(secret)}
    return found


def lines_of(text: str) -> Iterator[str]:
    """The values in a ``secrets.env``, of lines that are no longer used and of faulty ones too."""
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        value = value if equals else name
        yield from (value, value.strip(), value.strip().strip("'\""))


def secrets_here(values: Mapping[str, str], containers: Mapping[str, str]) -> set[str]:
    """Those of this installation, and those that its containers were started with.

    Raises:
        UserError: ``.env`` cannot be read: its secrets would not be known.
    """
    names = {s["name"] for s in settings.declared()}
    # Others have names of all kinds there: TOKENIZERS_PARALLELISM=false is no secret.
    environ = {n: v for n, v in os.environ.items() if n in names or "://" in v}
    layers = [environ, settings.parse_env(settings.env_text())]
    for identifier in containers.values():
        words = [docker.client(), "inspect", "--format", "{{json .Config.Env}}", identifier]
        pairs = json.loads(commands.output(words) or "[]") or []
        layers.append(dict(pair.partition("=")[::2] for pair in pairs))
    projects = b""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        projects = (settings.host_path(values["PROJECTS_DIR"]) / "secrets.env").read_bytes()
    return known_secrets(layers, projects.decode(errors="replace"))


# What is collected


def said(command: Sequence[str], seconds: float = SECONDS) -> str:
    """All that a command prints, and how it ended where that was not well."""
    # A group of its own, so that nothing that it started goes on.
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            output, _ = process.communicate(timeout=seconds)
            end = f"exit code {process.returncode}\n" if process.returncode else ""
        except BaseException as error:
            output = stopped(process)
            end = f"stopped after {seconds:g} s\n"
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
    return output.decode(errors="replace") + end


def stopped(process: subprocess.Popen[bytes]) -> bytes:
    """What a command has printed, which is ended with all that it started."""
    os.killpg(process.pid, signal.SIGTERM)  # so that Compose removes the container of doctor
    try:
        return process.communicate(timeout=15)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0]


def table(rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"{name:26} {'  '.join(more)}".rstrip() + "\n" for name, *more in rows)


def kit() -> Iterator[tuple[str, str]]:
    yield "ls-yolo", versions.project_version()
    try:
        yield "commit", git.git("rev-parse", "HEAD")
        changed = git.git("status", "--porcelain", "--untracked-files=no")
        yield "changed files of the kit", ", ".join(changed.split("\n")) or "none"
    except UserError as error:
        yield "commit", str(error)


def all_versions() -> str:
    engine = docker_engine.find_engine()
    return table([
        *kit(),
        ("label-studio of the kit", versions.label_studio()),
        ("system", system.os_release().get("PRETTY_NAME", ""), platform.machine()),
        ("kernel", platform.release()),
        ("python", platform.python_version()),
        ("Docker Engine", engine.state, engine.version),
        ("docker client", engine.client or "none"),
        ("compose", engine.compose or "none"),
        ("buildx", engine.buildx or "none"),
        *(("GPU", *found) for found in cuda.gpus()),
    ])  # fmt: skip


def all_settings(values: Mapping[str, str]) -> str:
    """The settings as they count, and where each is from."""
    layers = {"environment": os.environ, ".env": settings.parse_env(settings.env_text())}
    rows = []
    for setting in settings.declared():
        name = setting["name"]
        source = next((w for w, layer in layers.items() if settings.is_given(name, layer)), "")
        value = "***" if setting["secret"] and values[name] else values[name]
        rows.append((name, source or "default", value or "(empty)"))
    return table(rows)


def yaml(file: Path) -> str:
    return redaction.without_entries(file.read_text(errors="replace"))


def containers_of(project: str) -> dict[str, str]:
    """Names and ids of all containers of a Compose project; none where no engine answers."""
    if not docker.clients():
        return {}
    words = [docker.client(), "ps", "--all", "--no-trunc", "--format", "{{.Names}} {{.ID}}",
             "--filter", f"label=com.docker.compose.project={project}"]  # fmt: skip
    lines = (commands.output(words) or "").splitlines()
    return dict(line.split() for line in lines)


def all_containers(project: str, identifiers: Iterable[str]) -> str:
    label = f"label=com.docker.compose.project={project}"
    return said([docker.client(), "ps", "--all", "--filter", label]) + "".join(
        said([docker.client(), "inspect", "--format", FACTS, identifier])
        for identifier in identifiers
    )


def log_of(identifier: str) -> str:
    return said([docker.client(), "logs", "--tail", str(LINES), identifier])


def ask_backend(project: str, path: str) -> str:
    running = docker.containers(project, "backend", running=True)
    if not running:
        raise UserError("the backend does not run")
    return said([docker.client(), "exec", running[0], "python3", "-c", ASK, path])


def sections(values: Mapping[str, str], containers: Mapping[str, str]) -> Iterator[tuple[str, Ask]]:
    """The name of each member, and what gives its text; what takes long comes last."""
    project = values["COMPOSE_PROJECT_NAME"]
    models, projects = (settings.host_path(values[f"{n}_DIR"]) for n in ("MODELS", "PROJECTS"))
    yield "versions.txt", all_versions
    yield "settings.txt", partial(all_settings, values)
    yield "models/models.yaml", partial(yaml, models / "models.yaml")
    for file in sorted(projects.glob("*.y*ml")):
        yield f"projects/{file.name}", partial(yaml, file)
    yield "images.txt", lambda: said([docker.client(), "images", "--filter", "reference=ls-yolo/*"])
    yield "containers.txt", partial(all_containers, project, containers.values())
    for name, identifier in containers.items():
        yield f"logs/{name}.log", partial(log_of, identifier)
    for path in ("health", "metrics"):
        yield f"backend/{path}.txt", partial(ask_backend, project, f"/{path}")
    yield "preflight.txt", partial(said, [sys.executable, "scripts/preflight.py"])
    yield "doctor.txt", partial(said, [sys.executable, "scripts/doctor.py"], DOCTOR_SECONDS)


def text_of(ask: Ask) -> str:
    """The end of what a section says; one that fails says why, and the others go on."""
    try:
        text = ask()
    except (UserError, OSError) as error:
        return f"not there: {error}\n"
    except Exception as error:
        return f"not there: {type(error).__name__}: {error}\n"
    return text if len(text) <= MOST else text[-MOST:].partition("\n")[2]


# The archive


def write(
    target: Path, members: Iterable[tuple[str, str]], redactor: redaction.Redactor
) -> Iterator[tuple[str, int]]:
    """Makes the archive of ``members``, names and texts, without secrets.

    Yields:
        The name and the size of each, once it is in it.

    Raises:
        UserError: a secret is in it nevertheless; there is no archive then.
    """
    stem = target.name.partition(".")[0]
    with files.appearing(target) as file:
        with tarfile.open(fileobj=file, mode="w:gz") as tar:
            for name, text in members:
                data = redactor(text).encode("utf-8", "backslashreplace")
                shown = redactor(name)
                member = tarfile.TarInfo(f"{stem}/{shown}")
                member.size, member.mode = len(data), 0o600
                tar.addfile(member, io.BytesIO(data))
                yield shown, len(data)
        file.seek(0)
        with tarfile.open(fileobj=file) as tar:
            search(tar, redactor)


def search(tar: tarfile.TarFile, redactor: redaction.Redactor) -> None:
    """Raises: UserError: a member holds a secret that is known."""
    for member in tar:
        data = tar.extractfile(member)
        assert data is not None
        if redactor.finds(data.read().decode()) or redactor.finds(member.name):
            raise UserError(
                f"{redactor(member.name)}: a secret of this installation is in it, so no archive "
                "was made. This is a fault of the kit; report it"
            )


def main(words: Sequence[str] = sys.argv[1:]) -> int:
    parser = argparse.ArgumentParser(prog="support.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--to", type=Path, default=FOLDER)
    options = parser.parse_args(words)
    values = settings.values()
    now = datetime.datetime.now(datetime.UTC)
    target = backups.ready(options.to, NAME) / f"{NAME}-{now:%Y%m%dT%H%M%SZ}.tar.gz"
    containers = containers_of(values["COMPOSE_PROJECT_NAME"])
    redactor = redaction.Redactor(secrets_here(values, containers))
    members = ((name, text_of(ask)) for name, ask in sections(values, containers))
    for name, size in write(target, members, redactor):
        say(f"{readable(size):>7}  {name}")
    say(f"{target}: {readable(target.stat().st_size)}")
    say(
        "None of the secrets that are known here is in it; names of files, addresses and e-mail "
        "addresses are. Look before you send it: nothing was sent"
    )
    return 0


if __name__ == "__main__":
    run_main(main)
