#!/usr/bin/env python3
"""Builds the two images, and first the base image where no registry has it; PostgreSQL on request.

Mirrors, certificates and the index for torch reach the build as secrets: nothing of them stays in
an image or its history. Safe to run again; what has not changed is not built anew.

    build.py [label-studio] [backend] [postgres]

Without a name: label-studio, backend, and with POSTGRES=1 postgres; with IMAGES=present they must
be there.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from host import apt, system
from lib import ROOT, commands, docker, net, settings, versions
from lib.cli import UserError, run_main, say

BASE = "debian:trixie-slim"
POSTGRES = "postgres"
# On the same Debian as the stand-in: one sorts text as the other does.
OFFICIAL_POSTGRES = "postgres:17-trixie"
# A registry that answers names the image within seconds; one that does not may never say so.
FIRST_ANSWER = 30
WHOLE_PULL = 900
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
FOLDER_PREFIX = "ls-yolo-base-"
DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


# The base image


def pull(image: str) -> bool:
    """Pulls ``image``; False where no registry gives it."""
    say(f"{image}: asking the registry")
    process = subprocess.Popen(
        [docker.client(), "pull", image],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    said, errors = commands.Reader(process.stdout), commands.Reader(process.stderr)
    try:
        if not said.began.wait(FIRST_ANSWER):
            say(f"{image}: no registry answered within {FIRST_ANSWER} seconds")
            return False
        process.wait(WHOLE_PULL)
    except subprocess.TimeoutExpired:
        say(f"{image}: not pulled within {WHOLE_PULL} seconds")
        return False
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode:
        say(f"{image}: no registry gives it: {errors.text()}")
    return process.returncode == 0


# What the official slim image leaves out as well, and keeps out of later installations.
SLIM_PATTERNS = """\
# Documentation, manuals and translations are not wanted in a container.
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/groff/*
path-exclude /usr/share/info/*
path-exclude /usr/share/linda/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
"""


def sources(suite: str) -> str:
    """apt's sources in the image: Debian's own address, whatever mirror made it.

    A private one must not stay in it.
    """
    return f"""\
Types: deb
URIs: {net.DEBIAN_MIRROR}
Suites: {suite} {suite}-updates
Components: main
Signed-By: {DEBIAN_KEYRING}

Types: deb
URIs: {net.DEBIAN_MIRROR}-security
Suites: {suite}-security
Components: main
Signed-By: {DEBIAN_KEYRING}
"""


# Run as root by sh, with the folder as $1, the mirror as $2 and the suite as $6. set -e stops at
# the first failure.
# The mirror's login, if it has one, is in the file $5: on a command line others could read it.
DEBOOTSTRAP = """\
set -eu
[ ! -s "$5" ] || export WGETRC="$5"
debootstrap --variant=minbase --keyring="$3" "$6" "$1" "$2" "$4" >"$1.log" 2>&1 || {
	tail -n 15 "$1.log" >&2
	exit 1
}
find "$1/usr/share/doc" -mindepth 1 -not -type d -not -name copyright -delete
find "$1/usr/share/doc" -mindepth 1 -type d -empty -delete
for folder in groff info linda lintian locale man; do
	rm -rf "$1/usr/share/$folder"/*
done
rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/log/* "$1"/etc/apt/sources.list \\
	"$1"/etc/hostname "$1"/etc/resolv.conf "$1"/var/cache/ldconfig/aux-cache
: >"$1/etc/machine-id"
"""


def bootstrap(image: str) -> None:
    """Makes ``image``, ``debian:<suite>-slim``, from Debian's packages, as the official one is."""
    suite = image.removeprefix("debian:").removesuffix("-slim")
    elsewhere = f"bring it from another machine: docker save {image} | docker load"
    mirror, user, password = net.split_login(apt.debian_mirror())
    say(f"{image}: made here with debootstrap from {mirror} instead (half a minute, as root)")
    try:
        host = apt.Host()
    except UserError as failure:
        raise UserError(f"{failure}. Or {elsewhere}") from None
    needed = {"debootstrap": shutil.which("debootstrap", path="/usr/sbin:/sbin:/usr/bin")}
    needed["debian-archive-keyring"] = str(DEBIAN_KEYRING) if DEBIAN_KEYRING.exists() else None
    if missing := [name for name, found in needed.items() if not found]:
        if not shutil.which("apt-get"):
            raise UserError(
                f"no registry gives {image}, and making it needs debootstrap. Install debootstrap, "
                f"or {elsewhere}"
            )
        host.apt("update", check=False)
        host.apt("install", "-y", "--no-install-recommends", *missing)
    scripts = Path("/usr/share/debootstrap/scripts")
    script = next((str(scripts / name) for name in (suite, "sid") if (scripts / name).exists()), "")

    for left in left_behind(Path("/var/tmp")):
        remove_root(left / "root", host.root)
        shutil.rmtree(left)
    prefix = f"{FOLDER_PREFIX}{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir="/var/tmp") as parent:
        folder = Path(parent) / "root"
        login = Path(parent) / "login"  # in a folder that only we and root can enter
        login.write_text(wget_login(user, password))
        try:
            shell = [
                "sh", "-c", DEBOOTSTRAP, "sh",
                str(folder), mirror, str(DEBIAN_KEYRING), script, str(login), suite,
            ]  # fmt: skip
            if subprocess.run([*host.root, *shell]).returncode:
                raise UserError(
                    f"{image} could not be made; the lines above say why. Is {mirror} the right "
                    "mirror (APT_MIRROR)? Are there 2 GB free in /var/tmp?"
                )
            for name, text in (
                ("etc/dpkg/dpkg.cfg.d/docker", SLIM_PATTERNS),
                ("etc/apt/sources.list.d/debian.sources", sources(suite)),
            ):
                subprocess.run(
                    [*host.root, "tee", str(folder / name)],
                    input=text, text=True, stdout=subprocess.DEVNULL, check=True,
                )  # fmt: skip
            import_folder(folder, image, host.root)
        finally:
            remove_root(folder, host.root)


def wget_login(user: str, password: str) -> str:
    """A configuration of wget, which debootstrap fetches with."""
    return f"http_user = {user}\nhttp_password = {password}\n" if user else ""


def left_behind(parent: Path) -> list[Path]:
    """Folders of earlier runs that were killed: their names hold the number of the process."""
    return [
        folder
        for folder in parent.glob(f"{FOLDER_PREFIX}*-*")
        if folder.lstat().st_uid == os.geteuid()
        and not Path("/proc", folder.name.removeprefix(FOLDER_PREFIX).split("-")[0]).exists()
    ]


def import_folder(folder: Path, image: str, root: Sequence[str]) -> None:
    """A root file system as an image; the name appears only once all of it is there."""
    tar = subprocess.Popen(
        [*root, "tar", "-C", str(folder), "--numeric-owner", "-c", "."], stdout=subprocess.PIPE
    )
    change = ["-c", 'CMD ["bash"]']
    done = subprocess.run(
        [docker.client(), "import", *change, "-", image],
        stdin=tar.stdout,
        stdout=subprocess.DEVNULL,
    )
    if tar.stdout is not None:
        tar.stdout.close()
    if tar.wait() or done.returncode:
        raise UserError(f"{image} could not be imported. Is the Docker Engine's disk full?")


def remove_root(folder: Path, root: Sequence[str]) -> None:
    """Removes what debootstrap made, and first what it may have left mounted if it was stopped."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for point in reversed(mounts):
        if point.startswith(f"{folder}/"):
            subprocess.run([*root, "umount", "-l", point])
    subprocess.run([*root, "rm", "-rf", "--one-file-system", str(folder), f"{folder}.log"])


def ensure_base(image: str = BASE) -> None:
    if commands.output([docker.client(), "image", "inspect", "-f", "{{.Id}}", image]):
        return
    if not commands.output([docker.client(), "version", "--format", "{{.Server.Version}}"]):
        raise UserError("the Docker Engine does not answer. Run: python3 scripts/install_engine.py")
    if not pull(image):
        bootstrap(image)


# The images

# The secret travels in the environment: a file would stay behind when this is killed.
MIRRORS = "LS_YOLO_MIRRORS"


def torch_source(index: str) -> str:
    """Names the index without showing it: another index makes the layer anew, and stays private."""
    return f"index-{hashlib.sha256(index.encode()).hexdigest()[:8]}" if index else "lock"


def mirrors_text(values: Mapping[str, str]) -> str:
    """The secret ``mirrors``: shell lines, only of what is set."""
    names = ("APT_MIRROR", "PIP_INDEX_URL", "TORCH_INDEX")
    return "".join(f"{name}={shlex.quote(values[name])}\n" for name in names if values[name])


def contexts(name: str) -> dict[str, str]:
    """Folders that an image is made of beside its own, by the names that its Dockerfile has."""
    more = {"lib": "scripts/lib"} if name == "label-studio" else {}
    return {"kit": "scripts/image", **more}


def revision(folder: str) -> str:
    """The last commit that touched what an image is made of: others leave the image as it is."""
    git = ["git", "-C", str(ROOT)]
    paths = [folder, f":(exclude){folder}/tests", *contexts(folder).values()]
    commit = commands.output([*git, "log", "-1", "--format=%H", "--", *paths])
    if not commit:
        return "unknown"
    changed = commands.output([*git, "status", "--porcelain", "--", *paths])
    return f"{commit}-changed" if changed else commit


def build_command(
    name: str, tag: str, values: Mapping[str, str], builder: str, revision: str
) -> list[str]:
    arguments = {"VERSION": versions.project_version(), "REVISION": revision}
    if name == "backend":
        arguments["TORCH_SOURCE"] = torch_source(values["TORCH_INDEX"])
    command = [
        docker.client(), "buildx", "build", "--load", "--progress=auto", "--tag", tag,
        # The Docker Engine's own builder: another one would not see the base image that lies here.
        "--builder", builder,
        # A statement of how it was built holds the time, and so makes each image another one.
        "--provenance=false",
        *(word for key, path in contexts(name).items()
          for word in ("--build-context", f"{key}={ROOT / path}")),
        "--secret", f"id=mirrors,env={MIRRORS}",
    ]  # fmt: skip
    if bundle := net.certificates(values):
        command += ["--secret", f"id=ca,src={bundle}"]
    for key, value in arguments.items():
        command += ["--build-arg", f"{key}={value}"]
    # Known to every builder, and kept out of the image's history; the value comes from our own
    # environment and not from the command line, where others could read it.
    for proxy in (spelling for name in PROXIES for spelling in (name, name.lower())):
        if os.environ.get(proxy):
            command += ["--build-arg", proxy]
    return [*command, str(ROOT / name)]


def build(name: str, tag: str, values: Mapping[str, str]) -> None:
    say(f"{tag}: building from {name}/")
    builder = commands.output([docker.client(), "context", "show"]) or "default"
    command = build_command(name, tag, values, builder, revision(name))
    environment = {**os.environ, MIRRORS: mirrors_text(values)}
    if subprocess.run(command, stdin=subprocess.DEVNULL, env=environment).returncode == 0:
        return
    root = Path(
        commands.output([docker.client(), "info", "-f", "{{.DockerRootDir}}"]) or "/var/lib"
    )
    free = shutil.disk_usage(system.nearest(root)).free / 10**9
    raise UserError(
        f"{tag} was not built; the lines above say where it stopped. What it often is:\n"
        "  CERTIFICATE_VERIFY_FAILED or UnknownIssuer: your network has its own certificate "
        "authority; set CA_BUNDLE in .env to its file\n"
        "  timeouts, could not resolve, 404: set APT_MIRROR, PIP_INDEX_URL, TORCH_INDEX in .env to "
        "mirrors that this machine reaches\n"
        f"  no space left: {free:.1f} GB are free at {root}; docker builder prune makes room\n"
        "  hash mismatch: a mirror altered a package; use another mirror\n"
        "Then run make up again; what was built is kept"
    )


def title(image: str) -> str | None:
    """What an image calls itself; None where it is not here."""
    form = '{{index .Config.Labels "org.opencontainers.image.title"}}'
    return commands.output([docker.client(), "image", "inspect", "-f", form, image])


def ensure_postgres(values: Mapping[str, str]) -> None:
    """The official image under our name, else one of Debian's packages that starts the same way.

    What is there stays what it is: the registry is asked once.
    """
    tag = versions.POSTGRES_IMAGE
    found = title(tag)
    if found is None and pull(OFFICIAL_POSTGRES):
        commands.run([docker.client(), "tag", OFFICIAL_POSTGRES, tag])
        return
    if found in (None, f"ls-yolo {POSTGRES}"):
        ensure_base()
        build(POSTGRES, tag, values)


def need(tags: Sequence[str]) -> None:
    """
    Raises:
        UserError: an image is not here, and is not to be built.
    """
    if missing := [tag for tag in tags if title(tag) is None]:
        raise UserError(
            f"found no image {' and no '.join(missing)}, and IMAGES=present says that nothing is "
            "built. Bring what lacks (docker load, or ./install of a bundle), or set IMAGES=build"
        )


def remove_replaced() -> None:
    """Removes our own images that have lost their name to a newer one and serve no container."""
    for name in (*versions.images(), POSTGRES):
        label = f"label=org.opencontainers.image.title=ls-yolo {name}"
        commands.output([docker.client(), "image", "prune", "--force", "--filter", label], 60)


def main(arguments: Sequence[str]) -> int:
    images = versions.images()
    names = [*images, POSTGRES]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", nargs="*", help=", ".join(names))
    values = settings.values()
    usual = names if settings.enabled(values, "POSTGRES") else list(images)
    named = parser.parse_args(arguments).image
    chosen = named or usual
    if unknown := [name for name in chosen if name not in names]:
        raise UserError(f"found {', '.join(unknown)}, expected {', '.join(names)}")
    if not named and values["IMAGES"] == "present":
        need([images.get(name, versions.POSTGRES_IMAGE) for name in chosen])
        return 0
    for name in chosen:
        if name == POSTGRES:
            ensure_postgres(values)
        else:
            ensure_base()
            build(name, images[name], values)
    return 0


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
