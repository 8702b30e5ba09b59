#!/usr/bin/env python3
"""`make up`: from this host as it is to a running demo. Every step is safe to run again.

up.py             everything
up.py setup       services and projects alone, of an installation that is there
up.py prepare     engine, .env, demo files and images, nothing started (`make test` needs these)
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import build
import compose
import demo
import env
import install_engine
import preflight
from host import cuda, database, gpu, macvlan, restoring, upgrading
from lib import ROOT, commands, docker, git, settings, versions
from lib.cli import EX_CONFIG, EX_NOPERM, KILLED, UserError, run_main, say

SERVICES = ("label-studio", "backend")
POSTGRES = "postgres"
LOCK = ROOT / ".cache" / "up.lock"
# Longer than the services' own start_period: a first start migrates a database and loads models.
HEALTHY_WITHIN = 600


def step(text: str) -> None:
    say(f"\n== {text}")


def failure_of(work: Callable[[], None]) -> str:
    """Why some work failed, whatever it was, also that a person stopped it; empty if it did not."""
    try:
        work()
    except KeyboardInterrupt:
        return "stopped by a person"
    except UserError as error:
        return str(error) or type(error).__name__
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"
    return ""


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """One run at a time. The lock goes with this process, however it ends: nothing is left to
    clear away, and what we start (a Docker Engine, say) does not inherit it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another command is at work on this installation; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_host_ready(ports: bool, folders: bool = True) -> None:
    """Looks first, changes nothing if a person is needed, then installs what is missing.

    Raises:
        UserError: a person must do something first.
    """
    step("Pre-flight")
    checks = preflight.all_checks(ports, folders)
    say(preflight.table(checks))
    code = preflight.exit_code(checks)
    if code == 1:
        raise UserError(preflight.verdict(checks))
    if code:
        step("Engine")
        if install_engine.main():
            raise UserError("the Docker Engine is not ready; the lines above say why")
        checks = preflight.all_checks(ports, folders)
        if preflight.exit_code(checks):
            say(preflight.table(checks))
            raise UserError(preflight.verdict(checks))


def refuse_another_host() -> None:
    """Before ``setup`` alone, which makes no pre-flight: what overlays need must be there.

    Raises:
        UserError: the database would be another one, the LAN is unavailable, or the GPU.
    """
    values = settings.values()
    checks = [*database.checks(values, answers=True), *macvlan.checks(values, answers=True)]
    checks += gpu.checks(values, gpu.gpus(), answers=True)
    if preflight.exit_code(checks):
        raise UserError(preflight.verdict(checks))


def prepare(ports: bool) -> None:
    make_host_ready(ports)
    step("Settings")
    env.main()
    step("Demo files")
    demo.main()
    step("Images")
    build.main([])


def services() -> tuple[str, ...]:
    """Those that must be healthy, in the order that they need each other."""
    return (POSTGRES, *SERVICES) if settings.enabled(settings.values(), "POSTGRES") else SERVICES


def services_in_trouble(listing: str, expected: Sequence[str] = SERVICES) -> dict[str, str]:
    """Those ``expected`` that are not up and healthy and how they are, by ``compose ps --format
    json``.
    """
    found: dict[str, dict[str, Any]] = {}
    for line in listing.splitlines():
        if line.startswith("{"):
            container = json.loads(line)
            found[container["Service"]] = container
    trouble = {}
    for name in expected:
        container = found.get(name, {})
        state, health = container.get("State", "missing"), container.get("Health", "")
        if (state, health) == ("running", "healthy"):
            continue
        trouble[name] = health or state
        if state == "restarting":
            trouble[name] = f"keeps stopping, exit code {container.get('ExitCode')}"
        if container.get("ExitCode") == KILLED:
            limit = f"{name.upper().replace('-', '_')}_MEMORY"
            trouble[name] = f"was killed: by someone, or for using more memory than {limit} in .env"
    return trouble


def compose_run(*arguments: str) -> int:
    sys.stdout.flush()
    # Colours are for a terminal's own programs; what we show may end in a file.
    command = compose.command("--ansi", "never", *arguments)
    environ = compose.environment(secrets=compose.starts(arguments))
    return subprocess.run(command, env=environ, stdin=subprocess.DEVNULL).returncode


def check_models() -> None:
    """Asks the new image, in a container of its own, before a backend that works gives way to it.

    Raises:
        UserError: the backend would not start with them.
    """
    done = subprocess.run(
        compose.beside("run", "--rm", "--no-deps", "-T", "backend", "ls-yolo", "check"),
        env=compose.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode == 0:
        return
    lines = (done.stderr.strip() or done.stdout.strip()).replace("error: ", "  ")
    if done.returncode == EX_CONFIG:
        raise UserError(
            f"the models cannot be used:\n{lines}\n"
            "nothing was changed: the running backend goes on. Put that right and run this again"
        )
    raise UserError(f"the models could not be looked at (exit code {done.returncode}):\n{lines}")


def remove_outdated_network() -> None:
    """Compose leaves a network as it is when its settings change; this makes way for a new one."""
    values = settings.values()
    name = macvlan.name_of(values)
    found = [network for network in macvlan.networks() if network["Name"] == name]
    on = settings.enabled(values, "MACVLAN")
    if found and (not on or macvlan.is_outdated(values, found[0])):
        say(f"{name}: its settings have changed; removing it and what is in it")
        compose_run("rm", "--stop", "--force", *SERVICES)
        commands.output([docker.client(), "network", "rm", name], 60)


def start_services() -> None:
    # First of all: until it is finished, the data are half of one state and half of another.
    restoring.finish(settings.values())
    check_models()
    remove_outdated_network()
    # One that stops at a fault again and again is tried ever more rarely, though it may be mended.
    for line in compose.output("ps", "--format", "json").splitlines():
        if line.startswith("{") and (container := json.loads(line))["State"] == "restarting":
            compose_run("rm", "--stop", "--force", container["Service"])
    wait = ["--wait", "--wait-timeout", str(HEALTHY_WITHIN)]
    if compose_run("up", "-d", *wait, *services()) == 0:
        return
    listing = compose.output("ps", "--all", "--format", "json")
    trouble = services_in_trouble(listing, services())
    compose_run("ps", "--all")
    for name in trouble:
        say(f"\n-- the last lines of {name}:")
        log = compose.output("logs", "--no-color", "--no-log-prefix", "--tail", "40", name)
        # A service that stops at the same fault says it again at every start.
        say("\n".join(dict.fromkeys(log.splitlines())))
    what = "; ".join(f"{name} {state}" for name, state in trouble.items()) or "see above"
    raise UserError(
        f"the services did not become healthy ({what}). The lines above say why. Put that right "
        "and run make up again. make logs shows all of it"
    )


def check_gpu() -> None:
    """Lets torch compute in the backend's container, where a GPU was asked for.

    Raises:
        UserError: it cannot. The backend itself would go on with the CPU and tell its log alone.
    """
    values = settings.values()
    if not settings.enabled(values, "GPU") or values["DEVICE"] == "cpu":
        return
    code = "import torch; torch.ones(1, device='cuda').sum().item()"
    done = subprocess.run(
        compose.command("exec", "-T", "backend", "python3", "-c", code),
        env=compose.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode == 0:
        return
    said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    faults = cuda.faults(cuda.gpus(), versions.minimums())
    fixes = [f"{name}: found {found}, expected {need}. {fix}" for name, found, need, fix in faults]
    raise UserError(
        f"the backend was given GPU {values['GPU_DEVICE']}, but torch cannot compute on it and "
        f"takes the CPU:\n  {said}\n"
        + "\n".join(fixes or ["The driver runs? (nvidia-smi) After an update of it: reboot."])
        + "\nTo go on with the CPU: GPU=0 in .env (nvidia_enabled: false in an inventory)"
    )


def remove_left_behind() -> None:
    """Ends a setup whose make up was killed: its container goes on, and so would beside ours."""
    project = settings.values()["COMPOSE_PROJECT_NAME"]
    if found := docker.containers(project, "setup", one_off=True):
        say("removing the container of an earlier setup, which was not finished")
        commands.output([docker.client(), "rm", "--force", *found], 60)


def setup_once() -> int:
    """The exit code of setup. The services are healthy: nothing is started for it."""
    remove_left_behind()
    return compose_run("run", "--rm", "--no-deps", "-T", "setup")


def run_setup() -> None:
    code = setup_once()
    if code == EX_NOPERM:
        # Someone has reset the token in Label Studio; its start puts that of .env back.
        say("restarting label-studio, which takes the token of .env when it starts")
        compose_run("restart", "label-studio")
        start_services()
        code = setup_once()
    if code:
        raise UserError(
            "setup did not reach its goal; the lines above say why and what to do. "
            "Then run make up again: it goes on where it stopped"
        )


def address(values: Mapping[str, str]) -> str:
    """Where a person opens Label Studio."""
    if values["LABEL_STUDIO_HOST"]:
        return values["LABEL_STUDIO_HOST"]
    bound = values["BIND_ADDRESS"]
    host = "127.0.0.1" if bound in ("0.0.0.0", "::", "") else bound
    return f"http://{f'[{host}]' if ':' in host else host}:{values['LABEL_STUDIO_PORT']}"


def on_lan(values: Mapping[str, str]) -> str:
    """The lines about the LAN; none without it."""
    if not settings.enabled(values, "MACVLAN"):
        return ""
    return (
        f"on the LAN     http://{values['LABEL_STUDIO_ADDRESS']}:8080 (this host itself does not "
        "reach it: docs/network.md)\n"
        f"backend there  http://{values['BACKEND_ADDRESS']}:9090\n"
    )


def summary(values: Mapping[str, str]) -> str:
    """What to do next. It never shows the password: terminals and CI keep what they show."""
    return (
        f"Label Studio   {address(values)}\n"
        f"{on_lan(values)}"
        f"user           {values['LABEL_STUDIO_USERNAME']}\n"
        "password       LABEL_STUDIO_PASSWORD in .env\n"
        "\n"
        "Try next: open a project and a task in it: the boxes are the model's.\n"
        "Your own model and images: put weights in models/, name them in models/models.yaml, put\n"
        "images in datasets/, describe the project in projects/, and run make up again.\n"
        "make setup (new images) | make status | make logs | make down (keeps data) | make help"
    )


def newer_release(values: Mapping[str, str]) -> str:
    """A line about a newer release, where it is asked for; nobody else is."""
    if not settings.enabled(values, "UPDATE_CHECK"):
        return ""
    try:
        newer = git.newer_at_origin()
    except UserError as error:
        return f"UPDATE_CHECK: whether there is a newer release is not known: {error}"
    if not newer:
        return ""
    return f"{newer} is there: git fetch --tags && make upgrade   (docs/upgrade.md)"


def main(arguments: Iterable[str] = ()) -> int:
    words = list(arguments)
    if words not in ([], ["setup"], ["prepare"]):
        raise UserError(f"found {' '.join(words)!r}, expected nothing, setup or prepare")
    if words == ["setup"]:
        compose.need_env()
    with alone(LOCK):
        if words != ["prepare"]:
            upgrading.need_none(settings.values())
        if words == ["setup"]:
            refuse_another_host()
            start_services()
            check_gpu()
            run_setup()
        elif words == ["prepare"]:
            # Tests publish on ports of their own.
            prepare(ports=False)
        else:
            everything()
    return 0


def everything() -> None:
    began = time.monotonic()
    prepare(ports=True)
    step("Services")
    start_services()
    check_gpu()
    step("Projects")
    run_setup()
    build.remove_replaced()
    step(f"Ready after {time.monotonic() - began:.0f} s")
    values = settings.values()
    say(summary(values))
    if line := newer_release(values):
        say(f"\n{line}")


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
