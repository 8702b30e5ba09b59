"""The life of an installation: nothing that a person has made is lost on the way."""

from __future__ import annotations

import time

import pytest

from release import COMPONENT, until

pytestmark = pytest.mark.kubernetes
TITLE = "ls-yolo demo"


def threads(release):
    """What LABEL_STUDIO_THREADS is in the running pods."""
    return {
        variable["value"]
        for pod in release.ready("label-studio")
        for variable in pod["spec"]["containers"][0]["env"]
        if variable["name"] == "LABEL_STUDIO_THREADS"
    }


@pytest.fixture(scope="class")
def release(make, request):
    return request.cls.made(make)


@pytest.fixture(scope="class")
def before():
    """What there was at the beginning, for the later tests to find again."""
    return {}


class Life:
    """In this order, each going on from where the one before it has stopped."""

    def test_a_project_with_predictions_after_one_command(self, release, before, record_property):
        began = time.monotonic()
        release.install()
        record_property("seconds_to_first_predictions", round(time.monotonic() - began))
        before["stored"] = release.counted()
        before["secret"] = release.secret()

    def test_helm_test_makes_a_prediction(self, release):
        assert "Succeeded" in release.test().stdout

    def test_an_upgrade_that_would_lose_data_is_refused_and_changes_nothing(self, release, before):
        for values, words in self.refused:
            done = release.install(values=values, check=False)
            assert done.returncode != 0, values
            assert words in done.stderr, values
        self.all_is_there(release, before)

    def test_an_upgrade_with_another_value_keeps_all(self, release, before):
        task = next(iter(before["stored"]))
        region = next(iter(before["stored"][task].values())).result
        before["annotation"] = release.api.annotations.create(id=task, result=region).id
        release.install(values={"labelStudio": {"env": {"LABEL_STUDIO_THREADS": "9"}}})
        assert threads(release) == {"9"}
        self.all_is_there(release, before)

    def test_a_rollback_goes_back_to_the_old_value_and_keeps_all(self, release, before):
        release.rollback()
        assert threads(release) == {"8"}
        self.all_is_there(release, before)

    def test_uninstalling_leaves_claims_and_secrets(self, release):
        claims = {claim["metadata"]["name"] for claim in release.get("pvc")}
        release.uninstall()
        # What hooks made is Helm's no more; it has done its work and runs no longer.
        until(
            lambda: {pod["status"]["phase"] for pod in release.get("pods")} <= {"Succeeded"},
            90, "the end of all pods",
        )  # fmt: skip
        assert {claim["metadata"]["name"] for claim in release.get("pvc")} == claims
        assert not release.get("services") + release.get("deployments")

    def test_installed_again_on_those_everything_is_there(self, release, before):
        release.install()
        assert release.secret() == before["secret"]
        self.all_is_there(release, before)
        release.test()

    @staticmethod
    def all_is_there(release, before):
        now = release.stored(release.project(TITLE).id)
        assert {task: set(found) for task, found in now.items()} == {
            task: set(found) for task, found in before["stored"].items()
        }
        if "annotation" in before:
            assert release.api.annotations.get(before["annotation"]).result
        assert release.secret() == before["secret"]
        assert {pod["metadata"]["labels"][COMPONENT] for pod in release.get("pods")} >= {
            "label-studio", "backend",
        }  # fmt: skip


class TestLifeOnSqlite(Life):
    # Values that an upgrade must not take, and what the chart says to each.
    refused = (
        ({"postgres": {"enabled": True}}, "the database would be postgres of this release"),
        ({"labelStudio": {"persistence": {"enabled": False}}}, "/data of Label Studio would be"),
        ({"labelStudio": {"persistence": {"size": "1Gi"}}}, "A claim cannot shrink"),
        ({"datasets": {"claim": {"accessModes": ["ReadWriteMany"]}}}, "cannot be changed"),
        ({"fullnameOverride": "other"}, "Label Studio would begin empty"),
    )

    @staticmethod
    def made(make):
        # The one of all tests whose pods export their model, into a claim.
        return make(["cpu"], {"backend": {"env": {"ENGINE": "auto"}}})


class TestLifeOnPostgres(Life):
    refused = (
        ({"postgres": {"enabled": False}, "labelStudio": {"replicas": 1}}, "would be sqlite"),
        ({"postgres": {"image": {"tag": "16"}}}, "of Postgres 17, which it cannot read"),
        ({"postgres": {"persistence": {"storageClass": "other"}}}, "cannot be changed"),
        ({"postgres": {"persistence": {"enabled": False}}}, "no claim), and so far it is"),
        ({"postgres": {"persistence": {"existingClaim": "weights"}}}, "claim weights), and so far"),
        ({"postgres": {"database": "other"}}, "(database other, user labelstudio,"),
        ({"postgres": {"user": "other"}}, "(database labelstudio, user other,"),
        (
            {
                "fullnameOverride": "other",
                "labelStudio": {"persistence": {"existingClaim": "ls-yolo-label-studio"}},
            },
            "claim other-postgres), and so far it is",
        ),
    )

    @staticmethod
    def made(make):
        return make(["postgres"])
