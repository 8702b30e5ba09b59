"""Checks of the two services: whether they are there, reach each other, and are in good order."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from ls_yolo.doctor import address, certificates, tokens
from ls_yolo.doctor.base import Checks, Faulty, Finding, Level, Unavailable, failed, ok, warning
from ls_yolo.doctor.facts import TIMEOUT, Facts, Timed

CHECKS: Checks[Facts] = Checks()
LOCAL = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})
DAY = 86400
MB, GB = 10**6, 10**9
DISK = (0.5 * GB, 2 * GB)
"""Below how many free bytes a disk is a fault, and below how many it is warned of."""
CLOCK = (60.0, 5.0)
"""By how many seconds a clock that is off is a fault (tokens are refused), or warned of."""
SQLITE_LARGE = 2 * GB
"""From which size on PostgreSQL serves better."""
POSTGRES = 14
"""The oldest PostgreSQL that Label Studio takes."""
HELD = (
    "is a large import at work, or the file opened by another program? else restart label-studio; "
    "many writers: POSTGRES=1"
)
OLD_TRANSACTION = 300.0
"""From how many seconds on an open transaction is warned of: it keeps tables from being tidied."""


def size(count: float) -> str:
    """Bytes for people."""
    return f"{count / GB:.1f} GB" if count >= GB else f"{count / MB:.1f} MB"


def server(url: str) -> tuple[str, str]:
    """Host, and host and port, of an address; empty where it is none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", ""
    return (parts.hostname or "").lower(), parts.netloc


def localhost(url: str) -> bool:
    """Whether ``url`` is of the machine that asks."""
    return server(url)[0] in LOCAL


def reached(facts: Facts, name: str, url: str, path: str) -> tuple[Timed | None, list[Finding]]:
    """What ``url`` answers under ``path``, or why there is nothing."""
    host = urlsplit(url).hostname or ""
    if localhost(url) and facts.in_container:
        return None, [failed(
            f"{name} is {url}: inside a container, {host} is the container itself",
            f"set {name} to the name of the service, such as http://label-studio:8080 or "
            "http://backend:9090",
        )]  # fmt: skip
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        return None, [failed(
            f"{name} is {url}: the name {host} does not resolve here ({error.strerror})",
            "is the service up, and in the same network? make status",
        )]  # fmt: skip
    try:
        ask = facts.of_backend if name == "BACKEND_URL" else facts.of_studio
        return ask(path), []
    except Unavailable as error:
        return None, [failed(f"{name} is {url}: {error}", "make status, make logs")]


@CHECKS.add("label-studio")
def label_studio(facts: Facts) -> Iterator[Finding]:
    """Whether it answers where it is said to be, and what it is."""
    url = facts.studio.url
    answer, faults = reached(facts, "LABEL_STUDIO_URL", url, "health")
    yield from faults
    if answer is None:
        return
    try:
        version = f"{facts.said('version')}, of the kit"
    except Faulty:
        raise
    except Unavailable as error:
        if "not the image of the kit" in str(error):
            yield warning(
                "runs without the kit's calls, so what its own process knows is not looked at",
                "run the image ls-yolo/label-studio of this version: make up",
            )
            return
        version = "its version is not known without a token"
    yield ok(f"{version}, at {url} in {answer.seconds * 1000:.0f} ms")


@CHECKS.add("backend")
def backend(facts: Facts) -> Iterator[Finding]:
    """Whether it answers, and whether each model can."""
    url = facts.values["BACKEND_URL"]
    answer, faults = reached(facts, "BACKEND_URL", url, "health")
    yield from faults
    if answer is None:
        return
    content = facts.status.content
    if "models" not in content:
        yield failed(
            f"{url} does not take the password", "BASIC_AUTH_USER and BASIC_AUTH_PASS as in .env"
        )
        return
    if content.get("error"):
        yield failed(f"models.yaml: {content['error']}", "correct it; it is taken at once")
    for row in content["models"]:
        if row["error"]:
            say = failed if row["state"] == "failed" else warning
            yield say(row["error"], "correct that; it is taken at once", row["name"])
    able = [row for row in content["models"] if row["state"] != "failed"]
    names = ", ".join(row["version"] or row["name"] for row in able)
    if able:
        yield ok(f"{names}, at {url} in {answer.seconds * 1000:.0f} ms")


@CHECKS.add("token")
def token(facts: Facts) -> Iterator[Finding]:
    """Of which kind LABEL_STUDIO_API_KEY is, and whether it is taken."""
    mine = tokens.read(facts.values["LABEL_STUDIO_API_KEY"])
    if mine.kind == "none":
        yield failed("LABEL_STUDIO_API_KEY is empty", "make up, which generates it in .env")
        return
    if mine.kind == "access":
        yield failed(
            "LABEL_STUDIO_API_KEY is an access token, which lasts 5 minutes",
            "take the Personal Access Token that it was made of: Account & Settings",
        )
        return
    left = None if mine.expires is None else mine.expires - time.time()
    if left is not None and left < 0:
        yield failed("the Personal Access Token has expired", "make a new one in Label Studio")
        return
    kind = "a Personal Access Token" if mine.kind == "personal" else "a legacy token"
    try:
        user = facts.of_studio("api/current-user/whoami").content
    except Unavailable as error:
        if "answered 401" not in str(error) and "answered 403" not in str(error):
            yield failed(f"{kind}, {error}", "make status, make logs")
            return
        fix = (
            "restart label-studio, which takes that of .env and switches legacy tokens on: make up"
        )
        if mine.kind == "personal":
            fix = "make a new one in Label Studio, under Account & Settings"
        yield failed(f"{kind}, which Label Studio refuses", fix)
        return
    if left is not None and left < 7 * DAY:
        yield warning(f"{kind} that ends in {left / DAY:.1f} days", "make a new one in time")
    yield ok(f"{kind} of {user['email']}")


@CHECKS.add("label-studio reaches the backend")
def studio_to_backend(facts: Facts) -> Iterator[Finding]:
    """Whether Label Studio's own process may call each backend that it is given, and gets there."""
    if not facts.said("web")["guard"]:
        yield warning(
            "the guard against private addresses is off, so members can have Label Studio call "
            "whatever it reaches",
            "remove SSRF_PROTECTION_ENABLED and ML_BLOCK_LOCAL_IP from its environment",
        )
    limit = facts.said("limits")["health"]
    for url in facts.addresses:
        try:
            row = facts.reach(url)
        except Unavailable as error:
            yield failed(
                f"Label Studio cannot say whether it gets there ({error})",
                "is the backend up, and the address its own? make status", url,
            )  # fmt: skip
            continue
        if localhost(url):
            yield failed(
                "inside Label Studio's container, localhost is that container",
                f"give the connection {facts.values['BACKEND_URL']} in the project's settings, "
                "under Model, or run make setup", url,
            )  # fmt: skip
        elif row["kind"] == "url":
            yield failed(f"not an address: {row['error']}",
                         f"give the connection {facts.values['BACKEND_URL']}", url)  # fmt: skip
        elif row["kind"] == "refused":
            spared = ", ".join(facts.said("web")["spared"]) or "none"
            yield failed(
                f"Label Studio's guard refuses this private address ({row['error']})",
                f"name the host in SSRF_ALLOWED_HOSTS (now: {spared}), or give the connection "
                f"{facts.values['BACKEND_URL']}", url,
            )  # fmt: skip
        elif row["kind"] == "dns":
            yield failed(
                "the name does not resolve in Label Studio's container",
                "is that service up, and in the same network? make status", url,
            )  # fmt: skip
        elif row["kind"]:
            yield failed(
                f"not reached from Label Studio's container ({row['error']})",
                "is the backend up, and the address its own? make status", url,
            )  # fmt: skip
        elif row["seconds"] > limit / 2:
            yield warning(
                f"/health takes {row['seconds']:.1f} s of the {limit:g} s that Label Studio waits",
                "see what keeps the backend busy: make logs SERVICE=backend", url,
            )  # fmt: skip
        else:
            yield ok(f"/health in {row['seconds'] * 1000:.0f} ms", url)


@CHECKS.add("backend reaches label-studio")
def backend_to_studio(facts: Facts) -> Iterator[Finding]:
    """Whether the backend's own process gets to Label Studio, with its own token."""
    own = facts.own.content["label_studio"]
    if not own["url"] or own["token"] == "none":
        yield warning(
            "the backend has no address or no token of Label Studio, so uploads cannot be read",
            "set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY",
        )
    elif own["error"]:
        here = f"; inside its container, {urlsplit(own['url']).hostname} is that container"
        why = own["error"] + (here if localhost(own["url"]) else "")
        yield failed(
            f"{own['url']}: {why}",
            "set LABEL_STUDIO_URL of the backend to http://label-studio:8080, and its "
            "LABEL_STUDIO_API_KEY as in .env: make up",
        )
    else:
        yield ok(f"{own['url']} as {own['user']}, in {own['seconds'] * 1000:.0f} ms")


@CHECKS.add("gpu")
def gpu(facts: Facts) -> Iterator[Finding]:
    """Whether a GPU that the backend sees is used."""
    found = facts.own.content["gpu"]
    loaded = [row for row in facts.status.content.get("models", []) if row.get("engine")]
    idle = [row for row in loaded if " on cuda" not in row["engine"]]
    seen = ", ".join(found["devices"])
    if not found["devices"]:
        yield ok("the backend is given none: models run on the CPU")
    elif not loaded:
        yield ok(f"{seen}; no model is loaded yet")
    elif not idle:
        yield ok(f"{seen}, used by {', '.join(row['name'] for row in loaded)}")
    for row in idle if found["devices"] else ():
        fix = "DEVICE=auto and ENGINE=auto in .env; and does the driver work? nvidia-smi"
        if found["torch"].endswith("+cpu"):
            fix = f"torch {found['torch']} has no CUDA: make TORCH_INDEX empty in .env, make up"
        yield failed(f"{seen} is there and not used: {row['engine']}", fix, row["name"])


@CHECKS.add("clock")
def clock(facts: Facts) -> Iterator[Finding]:
    """Whether clocks agree: tokens count for minutes, and versions are told by their time."""
    heard = 0
    asks: dict[str, Callable[[], Timed]] = {
        "Label Studio": lambda: facts.diagnosis,
        "the backend": lambda: facts.own,
    }
    for who, ask in asks.items():
        try:
            answer = ask()
        except Unavailable:
            continue
        heard += 1
        said = float(answer.content["time"])
        off = max(answer.asked - said, said - answer.had, 0.0)
        if off > CLOCK[1]:
            say = failed if off > CLOCK[0] else warning
            yield say(f"{who}'s clock is {off:.0f} s off from the one here",
                      "have all hosts set theirs by NTP: timedatectl set-ntp true")  # fmt: skip
    if not heard:
        raise Unavailable("neither service tells its time")
    yield ok(f"{'both services agree' if heard == 2 else 'the service agrees'} with the one here")


@CHECKS.add("disk")
def disk(facts: Facts) -> Iterator[Finding]:
    """Whether there is room where the services write."""
    rows, missing = [], []
    asks: dict[str, Callable[[], Any]] = {
        "label-studio": lambda: facts.said("disks"),
        "backend": lambda: facts.own.content["disks"],
    }
    for who, ask in asks.items():
        try:
            rows += [(who, row) for row in ask()]
        except Faulty as error:
            yield failed(str(error), f"make logs SERVICE={who}", who)
        except Unavailable as error:
            missing.append(str(error))
    if not rows and missing:
        raise Unavailable(missing[0])
    said = []
    for who, row in rows:
        free = f"{size(row['free'])} of {size(row['total'])} free at {row['path']}"
        # A file system that is small as a whole, as /tmp is in memory, is judged by its share.
        low, warn = (min(DISK[0], row["total"] / 20), min(DISK[1], row["total"] / 5))
        if row["free"] < warn:
            say = failed if row["free"] < low else warning
            yield say(free, "make room: docker system prune removes what no container uses", who)
        elif row["path"] != "/tmp":  # in memory, and the same for ever
            said.append(f"{who}: {free}")
    if said:
        yield ok(", ".join(said))


@CHECKS.add("database")
def database(facts: Facts) -> Iterator[Finding]:
    """Its kind and size, and whether someone holds the others up."""
    try:
        found = facts.said("database")
    except Unavailable as error:
        if isinstance(error, Faulty) or "Timeout" not in str(error):
            raise
        # Each request of Label Studio writes; /health alone asks no database.
        facts.of_studio("health")
        yield failed(
            f"Label Studio answers /health, and within {TIMEOUT} s nothing that needs its database",
            HELD,
        )
        return
    kind = f"{found['kind']} {found['version']}"
    if found["locked"]:
        yield failed(
            "a writer holds SQLite's lock for more than 2 s, so nothing can be stored", HELD
        )
    if found["kind"] == "sqlite":
        if found["journal"] != "wal":
            yield failed(
                f"SQLite's journal is {found['journal']!r}, expected 'wal': readers would wait",
                "restart label-studio; its data must lie on a local disk, not on NFS",
            )
        if found["size"] > SQLITE_LARGE:
            yield warning(
                f"SQLite with {size(found['size'])}", "move to PostgreSQL: docs/postgres.md"
            )
    elif int(found["version"].split(".")[0]) < POSTGRES:
        yield failed(f"{kind} is too old for Label Studio", f"PostgreSQL {POSTGRES} or later")
    if found["waiting"]:
        yield warning(
            f"{found['waiting']} statements wait for locks", "see who holds them: pg_stat_activity"
        )
    if found["oldest"] > OLD_TRANSACTION:
        yield warning(
            f"a transaction is open for {found['oldest']:.0f} s", "end it: pg_terminate_backend"
        )
    yield ok(f"{kind}, {size(found['size'])}, nobody waits for a lock")


@CHECKS.add("migrations")
def migrations(facts: Facts) -> Iterator[Finding]:
    """Whether the database is as this Label Studio expects it."""
    pending = facts.said("migrations")
    if pending:
        some = ", ".join(pending[:3]) + (", ..." if len(pending) > 3 else "")
        yield failed(f"{len(pending)} are pending: {some}", "restart label-studio: make up")
        return
    yield ok("none is pending")


def _from_here(facts: Facts, findings: list[Finding]) -> Iterator[Finding]:
    """Findings of the address that people open, as they count here: a container may know neither
    its name, nor the way round through the router, nor who signs its certificate."""
    for found in findings:
        if facts.in_container and found.unsure and found.level == Level.FAILED:
            yield replace(
                found, level=Level.WARNING, found=f"seen from inside a container: {found.found}",
                fix=f"does a browser get there, and make doctor on the host? else: {found.fix}",
            )  # fmt: skip
        else:
            yield found


@CHECKS.add("address")
def front(facts: Facts) -> Iterator[Finding]:
    """Whether the address that people open leads here, and takes forms, asked through the proxy."""
    web = facts.said("web")
    if not web["address"]:
        yield ok("LABEL_STUDIO_HOST is not set: people open the port itself")
        return
    url = web["address"]
    if localhost(url) and facts.in_container:
        yield Finding(Level.SKIPPED, "localhost is another machine in a container; make doctor "
                      "asks on the host", "", url)  # fmt: skip
        return
    # As it is typed there; who asks may be where only its name of the inside counts.
    yield from _from_here(facts, address.look(url))


@CHECKS.add("certificates")
def certificate(facts: Facts) -> Iterator[Finding]:
    """Whether one of the addresses has a certificate that ends soon."""
    urls = [facts.studio.url, facts.values["BACKEND_URL"]]
    web = ""
    with contextlib.suppress(Unavailable):
        urls += facts.addresses
    with contextlib.suppress(Unavailable):
        web = facts.said("web")["address"]
        urls.append(web)
    secure = [url for url in dict.fromkeys(urls) if url.startswith("https://")]
    by_server = {server(url)[1]: url for url in secure if server(url)[0]}
    here = server(web)[1]
    for where, url in by_server.items():
        if localhost(url) and facts.in_container:
            continue
        found = certificates.look(url)
        yield from _from_here(facts, found) if where == here else found
    if not secure:
        yield ok("no address is https://")
