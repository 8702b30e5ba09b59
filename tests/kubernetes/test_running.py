"""What happens to a release while it runs: pods that go, other models, another Service address.

It stands on claims and secrets that were there before, behind an Ingress.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
import threading
import time
import zipfile

import pytest
import requests
import yaml

from cluster import kubernetes
from lib import ROOT, versions
from release import CHART, until

pytestmark = pytest.mark.kubernetes
TITLE = "Yard"
PAGE = ROOT / "docs" / "kubernetes.md"
LOGIN = {
    "LABEL_STUDIO_PASSWORD": "of-the-tests-77d1",
    "LABEL_STUDIO_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "BASIC_AUTH_PASS": "of-the-tests-40aa",
    "SECRET_KEY": "of-the-tests-only-and-long-enough-for-django-6c1f",
}
# As the chart's default, without the hash, so that other weights are taken.
MODELS = "coco:\n  weights: yolov8n.pt\n  conf: {conf}\n"
TASKS = 64


def with_comment(weights: bytes) -> bytes:
    """The same weights in a file with another hash."""
    file = io.BytesIO(weights)
    with zipfile.ZipFile(file, "a") as archive:
        folder = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{folder}/note", b"other")
    return file.getvalue()


@pytest.fixture(scope="class")
def release(make, demo_files):
    made = make(
        ["existing-claims", "existing-secrets", "ingress"],
        {
            "models": {"config": MODELS.format(conf=0.25)},
            "labelStudio": {"env": {"LABEL_STUDIO_HOST": "https://outside.example.com"}},
        },
        claims={
            "uploads": {},
            "exports": {},
            "images": {f"yard/{name}": demo_files[name] for name in ("bus.jpg", "zidane.jpg")},
        },
        objects=[
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ls-yolo-login"},
             "stringData": LOGIN},
        ],
    )  # fmt: skip
    made.install()
    return made


def predicted_by(release):
    """Versions of the stored predictions."""
    stored = release.stored(release.project(TITLE).id)
    return {prediction.model_version for found in stored.values() for prediction in found.values()}


def marks(release, component):
    """What would be another after a restart."""
    return {
        (pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"])
        for pod in release.pods(component)
    }


def retrieved_with_another_version(release, old):
    """Whether predictions that are asked for now have a version that was not there before."""
    release.retrieve(release.project(TITLE).id)
    return predicted_by(release) - old


class TestRunning:
    def test_it_is_installed_on_what_was_there_before(self, release):
        release.test()
        assert len(release.counted(TITLE)) == 2
        assert release.secret().items() >= LOGIN.items()
        made = {claim["metadata"]["name"] for claim in release.get("pvc")}
        assert made == set(), "the chart made no claim of its own"
        assert not release.get("secrets")

    def test_what_was_there_before_outlives_upgrades_and_the_release(self, release):
        release.live(TITLE)

    def test_forms_are_taken_from_the_address_that_people_open_and_from_the_ingress(self, release):
        (rule,) = release.one("ingress")["spec"]["rules"]
        assert rule["host"] == "labels.example.com"
        backend = rule["http"]["paths"][0]["backend"]["service"]
        service = release.one("services", "label-studio")
        assert backend["name"] == service["metadata"]["name"]
        session = requests.Session()
        page = session.get(f"{release.url}/user/login/", timeout=30)
        assert page.ok
        # Over https alone does a browser send such cookies; here they are sent by hand.
        token = next(cookie for cookie in session.cookies if cookie.name == "csrftoken")
        assert token.secure
        form = {
            "email": "admin@example.com", "password": LOGIN["LABEL_STUDIO_PASSWORD"],
            "csrfmiddlewaretoken": token.value,
        }  # fmt: skip
        answers = {
            origin: requests.post(
                f"{release.url}/user/login/", data=form, timeout=30, allow_redirects=False,
                headers={"Origin": origin, "Referer": f"{origin}/user/login/",
                         "Cookie": f"csrftoken={token.value}"},
            ).status_code
            for origin in (
                "https://outside.example.com", "https://labels.example.com",
                "https://elsewhere.example.com",
            )
        }  # fmt: skip
        assert list(answers.values()) == [302, 302, 403], answers

    def test_images_copied_in_as_the_page_says_become_tasks_of_their_project(
        self, release, demo_files, tmp_path
    ):
        (command,) = re.findall(r"(?s)```bash\n(tar -C images .*?)```", PAGE.read_text())
        (tmp_path / "images").mkdir()
        shutil.copy(demo_files["bus.jpg"], tmp_path / "images")
        for said, here in (
            ("labels-ls-yolo-label-studio", "ls-yolo-label-studio"),
            ("-n labels", f"-n {release.namespace}"),
            ("kubectl", kubernetes.KUBECTL),
        ):
            assert said in command
            command = command.replace(said, here)
        subprocess.run(["bash", "-euc", command], cwd=tmp_path, check=True, timeout=120)
        values = yaml.safe_load((CHART / "ci" / "existing-claims-values.yaml").read_text())
        project = values["projects"]["yard.yaml"]
        wheelhouse = project.replace("Yard", "Wheelhouse").replace("path: yard", "path: wheelhouse")
        release.install(values={"projects": {"wheelhouse.yaml": wheelhouse}})
        assert len(release.counted("Wheelhouse")) == 1

    def test_a_changed_models_yaml_is_in_the_next_prediction_without_a_restart(self, release):
        old, running = predicted_by(release), marks(release, "backend")
        release.install(values={"models": {"config": MODELS.format(conf=0.3)}})
        until(lambda: retrieved_with_another_version(release, old), 150, "the new threshold", 3)
        assert marks(release, "backend") == running

    def test_new_weights_are_in_the_next_prediction_without_a_restart(
        self, release, images, demo_files
    ):
        old, running = predicted_by(release), marks(release, "backend")
        other = with_comment(demo_files["yolov8n.pt"].read_bytes())
        image = images[versions.images()["backend"]]
        kubernetes.fill(release.namespace, image, {"weights/yolov8n.pt": other})
        until(lambda: retrieved_with_another_version(release, old), 120, "the new weights", 3)
        assert marks(release, "backend") == running

    def test_each_pod_of_an_autoscaler_has_the_new_models_yaml_when_setup_is_done(self, release):
        # Without a metrics API it knows no load; the fewest pods it keeps all the same.
        scaled = {"autoscaling": {"hpa": {"enabled": True, "minReplicas": 2, "maxReplicas": 2}}}
        release.install(values={"backend": scaled})
        until(lambda: len(release.ready("backend")) == 2, 180, "the autoscaler's second pod")
        config = MODELS.format(conf=0.35)
        release.install(values={"backend": scaled, "models": {"config": config}})
        taken = [
            release.kubectl("exec", pod["metadata"]["name"], "--", "cat", "/config/models.yaml")
            for pod in release.ready("backend")
        ]
        assert taken == [config, config]

    def test_a_service_made_anew_is_called_at_its_new_address(self, release):
        running = marks(release, "label-studio")
        name = release.one("services", "backend")["metadata"]["name"]
        address = release.one("services", "backend")["spec"]["clusterIP"]
        release.kubectl("delete", "service", name)
        # The old address is taken, so that the new one is another.
        release.kubectl("create", "service", "clusterip", "taken", f"--clusterip={address}",
                        "--tcp=80:80")  # fmt: skip
        release.install(values={"models": {"config": MODELS.format(conf=0.3)}})
        assert release.one("services", "backend")["spec"]["clusterIP"] != address
        release.test()
        assert marks(release, "label-studio") == running

    def test_pods_deleted_under_load_lose_no_stored_prediction(self, release):
        project = release.project(TITLE).id
        release.api.projects.import_tasks(
            id=project,
            request=[{"image": "/data/local-files/?d=yard/bus.jpg"} for _ in range(TASKS)],
        )
        seen: dict[int, int] = {}
        failures: list[str] = []
        stop = threading.Event()

        def load():
            while not stop.is_set():
                # A request that hits a pod that goes may fail: a person presses again.
                try:
                    stored = release.stored(project)
                    seen.update({p: task for task, found in stored.items() for p in found})
                    missing = [task for task, found in stored.items() if not found]
                    if not missing:
                        return
                    release.retrieve(project, missing[:6])
                except Exception as error:
                    failures.append(f"{type(error).__name__}: {error}")
                    time.sleep(1)

        thread = threading.Thread(target=load)
        thread.start()
        try:
            for component in ("backend", "label-studio"):
                count = len(seen)
                until(lambda count=count: len(seen) > count, 60, "progress", 0.1)
                (pod,) = release.ready(component)
                name = pod["metadata"]["name"]
                release.kubectl("delete", "pod", name, "--wait=false")
                until(
                    lambda component=component, name=name: [
                        pod for pod in release.ready(component) if pod["metadata"]["name"] != name
                    ],
                    180, f"another {component}",
                )  # fmt: skip
            thread.join(240)
            assert not thread.is_alive(), failures[-5:]
        finally:
            stop.set()
            thread.join(120)
        assert len(seen) >= TASKS
        stored = release.stored(project)
        assert all(stored.values()), "every task has a prediction in the end"
        there = {p for found in stored.values() for p in found}
        assert set(seen) <= there, "what was stored once is stored still"
        with contextlib.suppress(IndexError):
            print(f"{len(failures)} requests failed meanwhile, the last: {failures[-1]}")
