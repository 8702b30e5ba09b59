"""Both services, booted from the product's own Compose file, under a name of their own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import docker
import pytest
import requests
import yaml
from label_studio_sdk import LabelStudio
from PIL import Image
from testcontainers.compose import DockerCompose

ROOT = Path(__file__).resolve().parents[2]
VERSION = (ROOT / "VERSION").read_text().strip()
IMAGES = {name: f"ls-yolo/{name}:{VERSION}" for name in ("label-studio", "backend")}
ARTIFACTS = ROOT / "artifacts"
DEMO: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "demo.yaml").read_text())

# The labeling config of a deployment that was made by hand, to the letter.
SEED_CONFIG = """<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="label" toName="image" model_score_threshold="0.2" model_path="" opacity="0.1">
    <Label value="person" background="red"/>
    <Label value="car" background="yellow"/>
  </RectangleLabels>
</View>"""  # noqa: E501

# Other suites run beside these: torch's threads that wait for each other give way and do not spin,
# which takes a sixth less of the CPU.
GIVE_WAY = {"OMP_WAIT_POLICY": "PASSIVE"}

# One file of weights under several names, so that which model answered can be told apart.
MODELS = {
    "coco": {"weights": "yolov8n.pt", "conf": 0.25},
    "wheelhouse-person": {"weights": "yolov8n.pt", "conf": 0.4, "iou": 0.4},
    "wheelhouse-head": {"weights": "yolov8n.pt", "conf": 0.4, "names": {0: "head"}},
}


def label_config(*labels: str, attributes: str = "") -> str:
    """A labeling config with one RectangleLabels control of ``labels``."""
    inner = "".join(f'<Label value="{label}"/>' for label in labels)
    return (
        '<View><Image name="image" value="$image"/>'
        f'<RectangleLabels name="label" toName="image" {attributes}>{inner}'
        "</RectangleLabels></View>"
    )


def lacking(what: str) -> NoReturn:
    """Skips a test for what this machine lacks; `make test` brings it, so there it is a failure."""
    if os.environ.get("LS_YOLO_NO_SKIPS"):
        pytest.fail(what)
    pytest.skip(what)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass
class Stack:
    """A running pair of services, and what a test asks of them."""

    folder: Path
    env: dict[str, str]
    overlay: str = "compose.test.yaml"
    services: tuple[str, ...] = ("label-studio", "backend")
    compose: DockerCompose = field(init=False)

    def __post_init__(self) -> None:
        self.env_file.write_text("".join(f"{key}={value}\n" for key, value in self.env.items()))
        self.env_file.chmod(0o600)
        self.compose = DockerCompose(
            context=ROOT,
            compose_file_name=["compose/compose.yaml", f"tests/integration/{self.overlay}"],
            env_file=[str(self.env_file)],
            services=list(self.services),
            docker_command_path=shutil.which("docker"),
        )

    @property
    def env_file(self) -> Path:
        return self.folder / ".env"

    @property
    def name(self) -> str:
        """That of the Compose project."""
        return self.env["COMPOSE_PROJECT_NAME"]

    @property
    def datasets(self) -> Path:
        return self.folder / "datasets"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.env['LABEL_STUDIO_PORT']}"

    @property
    def backend_url(self) -> str:
        return f"http://127.0.0.1:{self.env['BACKEND_PORT']}"

    @property
    def auth(self) -> tuple[str, str]:
        return self.env["BASIC_AUTH_USER"], self.env["BASIC_AUTH_PASS"]

    @cached_property
    def api(self) -> Any:  # the SDK's types are unions that no caller could narrow
        make: Any = LabelStudio
        return make(base_url=self.url, api_key=self.env["LABEL_STUDIO_API_KEY"], timeout=120)

    @cached_property
    def docker(self) -> Any:
        return docker.from_env()

    def run(
        self, *arguments: str, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs ``docker compose`` with these arguments, and ``environment`` beside the test's."""
        done = subprocess.run(
            [*self.compose.docker_compose_command(), *arguments],
            cwd=ROOT, capture_output=True, text=True, timeout=300,
            env={**os.environ, **environment},
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    def up(self) -> None:
        self.run("up", "--detach", "--wait", *self.services)

    def container(self, service: str) -> Any:
        found = self.docker.containers.list(
            all=True,
            filters={
                "label": [
                    f"com.docker.compose.project={self.name}",
                    f"com.docker.compose.service={service}",
                ]
            },
        )
        assert len(found) == 1, found
        return found[0]

    def log(self, service: str) -> str:
        return str(self.container(service).logs().decode())

    def setup(self, *projects: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        """Runs the service ``setup`` on these projects and no others."""
        for old in (self.folder / "projects").iterdir():
            old.unlink()
        for number, project in enumerate(projects):
            (self.folder / "projects" / f"{number}.yaml").write_text(yaml.safe_dump(project))
        return self.run("run", "--rm", "-T", "setup", check=False)

    def project(self, title: str) -> Any:
        (found,) = [
            p for p in self.api.projects.list(title=title, page_size=100).items if p.title == title
        ]
        return found

    def predictions(self, project: int) -> dict[str, list[Any]]:
        """Stored predictions by the file name of their task."""
        names = {task.id: self.file_name(task) for task in self.tasks(project)}
        found: dict[str, list[Any]] = {name: [] for name in names.values()}
        for prediction in self.api.predictions.list(project=project):
            found[names[prediction.task]].append(prediction)
        return found

    def tasks(self, project: int) -> list[Any]:
        return list(self.api.tasks.list(project=project, fields="all", page_size=100).items)

    @staticmethod
    def file_name(task: Any) -> str:
        return str(task.data["image"]).rpartition("/")[2]

    def retrieve(self, project: int) -> None:
        """What the button "Retrieve predictions" does, on every task."""
        self.api.actions.create(
            id="retrieve_tasks_predictions",
            project=project,
            selected_items={"all": True, "excluded": []},
        )

    def post(self, path: str, body: Any, authenticated: bool = True) -> requests.Response:
        """A call to the backend as Label Studio makes it."""
        return requests.post(
            self.backend_url + path,
            json=body,
            auth=self.auth if authenticated else None,
            timeout=60,
        )

    def images(self, folder: str, **pictures: Image.Image) -> None:
        """Saves pictures as JPEG in a folder of the datasets."""
        target = self.datasets / folder
        target.mkdir(exist_ok=True)
        for name, picture in pictures.items():
            picture.save(target / f"{name}.jpg", quality=95, exif=picture.getexif())
        target.chmod(0o755)


# Asks a backend from inside its container, once it is ready: it needs no port and no network.
ASK = """
import sys, time, urllib.request as u
for _ in range(120):
    try:
        u.urlopen('http://127.0.0.1:9090/readyz')
        break
    except OSError:
        time.sleep(0.5)
body = sys.argv[2].encode() or None
json = {'Content-Type': 'application/json'}
request = u.Request('http://127.0.0.1:9090' + sys.argv[1], body, json)
print(u.urlopen(request).read().decode())
"""


def ask_inside(container: Any, path: str, body: Any = None) -> Any:
    """What the backend in ``container`` answers."""
    text = "" if body is None else json.dumps(body)
    code, output = container.exec_run(["python", "-c", ASK, path, text])
    assert code == 0, output.decode()
    return json.loads(output)


def fetch_demo(folder: Path) -> None:
    """The demo's weights and images: those that `make up` fetched, else fetched now."""
    ours = {
        "MODELS_DIR": ROOT / "models",
        "DATASETS_DIR": ROOT / "datasets",
        "PROJECTS_DIR": ROOT / "projects",
    }
    subprocess.run(
        [sys.executable, "scripts/demo.py"], cwd=ROOT, check=True,
        env={**os.environ, **{key: str(path) for key, path in ours.items()}},
    )  # fmt: skip
    (folder / "models").mkdir()
    for name in ("yolov8n.pt", "yolov8n-seg.pt"):
        shutil.copy(ours["MODELS_DIR"] / name, folder / "models")
    shutil.copytree(ours["DATASETS_DIR"] / "demo", folder / "datasets" / "demo")


def client_with(*images: str) -> Any:
    """A client of the Docker Engine, which has ``images``."""
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        lacking(f"no Docker engine answers ({error}); `make test-integration` starts one")
    for image in images:
        try:
            client.images.get(image)
        except docker.errors.ImageNotFound:
            lacking(f"{image} is not built; `make images` builds it")
    return client


def answer_inside(
    folder: Path, script: str, volumes: Mapping[str, str] = MappingProxyType({}), **tmpfs: str
) -> Any:
    """What ``script``, a file beside this one, finds in the backend's image, without a network.

    It sees the demo's weights in /models and its images in /images, which are put into ``folder``,
    and ``volumes``: folder here to folder there; ``tmpfs``: name of a folder to its options.
    """
    client = client_with(IMAGES["backend"])
    (folder / "datasets").mkdir()
    fetch_demo(folder)
    for path in [folder, *folder.parents[:2], *folder.rglob("*")]:
        path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    seen = {
        str(folder / "models"): "/models",
        str(folder / "datasets" / "demo"): "/images",
        str(Path(__file__).resolve().parent): "/tests",
        **volumes,
    }
    output = client.containers.run(
        IMAGES["backend"], ["python", f"/tests/{script}"],
        remove=True, network_mode="none", read_only=True, mem_limit="4g", environment=GIVE_WAY,
        tmpfs={f"/{name}": f"mode=1777,{options}" for name, options in tmpfs.items()},
        volumes={here: {"bind": there, "mode": "ro"} for here, there in seen.items()},
    )  # fmt: skip
    line = next(line for line in output.decode().splitlines() if line.startswith("ANSWER "))
    return json.loads(line.removeprefix("ANSWER "))


@contextlib.contextmanager
def new_stack(
    overlay: str = "compose.test.yaml",
    services: tuple[str, ...] = ("label-studio", "backend"),
    **env: str,
) -> Iterator[Stack]:
    """The services, up and healthy, with nothing in them yet; ``env``: what to add to .env."""
    client_with(*IMAGES.values())
    folder = Path(tempfile.mkdtemp(prefix="ls-yolo-test-"))
    # The services' user is not this one; what they mount must be open to them.
    folder.chmod(0o755)
    (folder / "datasets").mkdir(mode=0o755)
    (folder / "projects").mkdir(mode=0o755)
    fetch_demo(folder)
    (folder / "models" / "models.yaml").write_text(yaml.safe_dump(MODELS, sort_keys=False))
    stack = Stack(
        folder,
        {
            "COMPOSE_PROJECT_NAME": f"ls-yolo-test-{secrets.token_hex(3)}",
            "LS_YOLO_VERSION": VERSION,
            "LABEL_STUDIO_PORT": str(free_port()),
            "BACKEND_PORT": str(free_port()),
            "DATASETS_DIR": str(folder / "datasets"),
            "MODELS_DIR": str(folder / "models"),
            "PROJECTS_DIR": str(folder / "projects"),
            "LABEL_STUDIO_USERNAME": "tester@example.com",
            "LABEL_STUDIO_PASSWORD": secrets.token_hex(12),
            "LABEL_STUDIO_API_KEY": secrets.token_hex(20),
            "BASIC_AUTH_USER": "label-studio",
            "BASIC_AUTH_PASS": secrets.token_hex(16),
            **env,
        },
        overlay,
        services,
    )
    try:
        stack.up()
        yield stack
    finally:
        ARTIFACTS.mkdir(exist_ok=True)
        log = ARTIFACTS / f"{Path(overlay).stem}.log"
        log.write_text(stack.run("logs", "--no-color", check=False).stdout)
        stack.run("down", "--volumes", "--remove-orphans", check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The two services, up and healthy, with nothing in them yet."""
    with new_stack() as made:
        yield made


@pytest.fixture(scope="session")
def demo(stack: Stack) -> Any:
    """The demo project, made by setup from the product's own examples/demo.yaml."""
    done = stack.setup(DEMO)
    assert done.returncode == 0, done.stdout + done.stderr
    return stack.project("ls-yolo demo")


@pytest.fixture(scope="session")
def direct(stack: Stack) -> Any:
    """Ultralytics called directly, in a container of its own: {file: [[class, score, box]]}."""

    def predict(folder: Path, conf: float, iou: float) -> dict[str, list[Any]]:
        script = (
            "import json, sys, pathlib; from ultralytics import YOLO\n"
            "model = YOLO('/models/yolov8n.pt'); answer = {}\n"
            "for path in sorted(pathlib.Path('/images').iterdir()):\n"
            f"    found = model.predict(path, conf={conf}, iou={iou}, verbose=False)[0]\n"
            "    answer[path.name] = [\n"
            "        [model.names[int(b.cls)], float(b.conf), b.xyxyn[0].tolist()]\n"
            "        for b in found.boxes]\n"
            "print('ANSWER', json.dumps(answer))"
        )
        output = stack.docker.containers.run(
            IMAGES["backend"], ["python", "-c", script], remove=True, network_mode="none",
            volumes={
                str(stack.folder / "models"): {"bind": "/models", "mode": "ro"},
                str(folder): {"bind": "/images", "mode": "ro"},
            },
        )  # fmt: skip
        line = next(line for line in output.decode().splitlines() if line.startswith("ANSWER "))
        found: dict[str, list[Any]] = json.loads(line.removeprefix("ANSWER "))
        return found

    return predict
