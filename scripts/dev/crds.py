"""Brings CustomResourceDefinitions of other projects for the tests of the chart, pinned by hash.

They come out of Go modules, whose proxy is reached where GitHub may not be.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

from cluster import tools
from lib import net, settings, wheels
from lib.cli import UserError, run_main, say
from lib.files import sha256_of

FOLDER = tools.CACHE / "kinds"
GO_PROXY = "https://proxy.golang.org"


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
        return tools.CACHE / f"{self.path.replace('/', '-')}-{self.version}.zip"


MODULES = (
    Module(
        "github.com/prometheus-operator/prometheus-operator",
        "v0.85.0",
        "0bdb88ed823d0f2e86cf909638439b6ad1da744a228172c7411d9987527dc5d1",
        "example/prometheus-operator-crd",
        (
            "monitoring.coreos.com_servicemonitors.yaml",
            "monitoring.coreos.com_prometheusrules.yaml",
        ),
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


def go_proxy(setting: str) -> str:
    """The first proxy that a GOPROXY of Go's names; the public one where it names none."""
    words = setting.replace("|", ",").split(",")
    return next((w.rstrip("/") for w in words if w.startswith(("http://", "https://"))), GO_PROXY)


def fetch(folder: Path = FOLDER) -> None:
    """Brings the definitions of kinds of other projects: ``folder``/<file>.

    Raises:
        UserError: they are unavailable.
    """
    proxy = go_proxy(os.environ.get("GOPROXY", ""))
    bundle = settings.values()["CA_BUNDLE"]
    for module in MODULES:
        if module.archive.is_file() and sha256_of(module.archive) == module.sha256:
            continue
        url = f"{proxy}/{module.address}"
        say(f"fetching {module.path} {module.version} from {net.without_password(proxy)}")
        try:
            wheels.download(url, module.archive, module.sha256, bundle)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{net.without_password(url)} is unavailable: {error}. Set GOPROXY to a Go "
                "module proxy that this machine reaches, such as https://goproxy.cn"
            ) from error
    folder.mkdir(parents=True, exist_ok=True)
    for module in MODULES:
        with zipfile.ZipFile(module.archive) as content:
            for file in module.files:
                inside = f"{module.path}@{module.version}/{module.folder}/{file}"
                (folder / file).write_bytes(content.read(inside))


def main() -> int:
    fetch()
    return 0


if __name__ == "__main__":
    run_main(main)
