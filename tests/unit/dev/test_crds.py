"""CustomResourceDefinitions of other projects come out of Go modules, checked."""

from __future__ import annotations

import hashlib
import io
import zipfile

import pytest

from cluster import tools
from dev import crds
from lib import wheels


@pytest.mark.parametrize(
    ("setting", "proxy"),
    [
        ("", "https://proxy.golang.org"),
        ("off", "https://proxy.golang.org"),
        ("direct", "https://proxy.golang.org"),
        ("https://goproxy.cn,direct", "https://goproxy.cn"),
        ("direct|https://a.example/", "https://a.example"),
    ],
)
def test_the_go_proxy_is_the_first_that_goproxy_names(setting, proxy):
    assert crds.go_proxy(setting) == proxy


def test_kinds_are_taken_out_of_their_module(tmp_path, monkeypatch):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("example.com/kinds@v1.0.0/crd/a.yaml", b"kind: A")
    content = data.getvalue()
    module = crds.Module(
        "example.com/kinds", "v1.0.0", hashlib.sha256(content).hexdigest(), "crd", ("a.yaml",)
    )
    asked = []

    def download(url, path, sha256, bundle):
        asked.append(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    monkeypatch.setattr(crds, "MODULES", (module,))
    monkeypatch.setattr(tools, "CACHE", tmp_path)
    monkeypatch.setattr(wheels, "download", download)
    monkeypatch.setenv("GOPROXY", "https://goproxy.cn")
    for _ in range(2):
        crds.fetch(tmp_path / "kinds")
    assert (tmp_path / "kinds" / "a.yaml").read_text() == "kind: A"
    assert asked == ["https://goproxy.cn/example.com/kinds/@v/v1.0.0.zip"], "the second time none"
