"""What only the cluster knows is looked up before anything is changed."""

from __future__ import annotations

import base64

import pytest
import yaml

from cluster import kubernetes
from release import CHART, NAME, Release, namespace

pytestmark = pytest.mark.kubernetes
LOGIN = ("LABEL_STUDIO_PASSWORD", "LABEL_STUDIO_API_KEY", "BASIC_AUTH_PASS", "SECRET_KEY")


@pytest.fixture(scope="module")
def where(reached):
    with namespace("t-refusals") as name:
        yield name


def said(where, values, *words):
    """What Helm says to an installation that is refused."""
    release = Release(where, [])
    done = release.install("--dry-run=server", *words, values=values, check=False)
    assert done.returncode != 0
    return done.stderr


def test_a_secret_that_is_not_there_is_named_with_its_keys(where):
    fault = said(where, {"secrets": {"existingSecret": "login"}})
    assert f"secrets.existingSecret=login: no Secret of that name in the namespace {where}" in fault
    assert [key for key in LOGIN if key not in fault] == []


def test_the_keys_that_a_secret_lacks_are_named(where):
    kubernetes.apply({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "half", "namespace": where},
        "data": {key: base64.b64encode(b"x" * 40).decode() for key in LOGIN[:3]},
    })  # fmt: skip
    fault = said(where, {"secrets": {"existingSecret": "half"}})
    assert "secrets.existingSecret=half: the Secret lacks SECRET_KEY." in fault


def test_all_that_a_file_of_values_wants_and_the_namespace_lacks_is_named_at_once(where):
    values = yaml.safe_load((CHART / "ci" / "existing-claims-values.yaml").read_text())
    fault = said(where, values)
    for claim in ("uploads", "images", "weights", "exports"):
        assert f"existingClaim={claim}: no claim of that name" in fault
    assert "4 value(s)" in fault


def test_nothing_is_left_of_a_refused_installation(where):
    release = Release(where, [])
    done = release.install(values={"secrets": {"existingSecret": "login"}}, check=False)
    assert done.returncode != 0
    assert "nothing was changed" in done.stderr
    assert release.get("all,pvc,cm,secret,sa,networkpolicy") == []
    assert NAME not in release.helm("list", "--short").stdout.split()
