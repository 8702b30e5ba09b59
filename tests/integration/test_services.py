"""How the two services run: what they may do, whom they may call, and what survives what."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from conftest import DEMO, IMAGES, MODELS, ROOT, Stack, ask_inside, label_config
from lib import versions

pytestmark = pytest.mark.docker

SERVICES = ("label-studio", "backend")


def token(stack: Stack) -> dict[str, str]:
    return {"Authorization": f"Token {stack.env['LABEL_STUDIO_API_KEY']}"}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_no_privilege(stack: Stack, service: str) -> None:
    container = stack.container(service)
    host, config = container.attrs["HostConfig"], container.attrs["Config"]
    assert config["User"] == "1001:1001"
    assert not host["Privileged"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["ReadonlyRootfs"]
    assert any(option.startswith("no-new-privileges") for option in host["SecurityOpt"])
    assert host["Init"]
    assert host["Memory"] > 0
    assert host["LogConfig"]["Config"]["max-size"]
    bindings = [b["HostIp"] for ports in host["PortBindings"].values() for b in ports]
    assert bindings == ["127.0.0.1"]
    uids, caps = container.exec_run(["cat", "/proc/1/status"]).output.decode(), "0000000000000000"
    assert "Uid:\t1001\t1001\t1001\t1001" in uids
    for line in ("CapPrm", "CapEff", "CapBnd"):
        assert f"{line}:\t{caps}" in uids


def test_datasets_and_models_are_read_only_in_the_backend(stack: Stack) -> None:
    mounts = {m["Destination"]: m["RW"] for m in stack.container("backend").attrs["Mounts"]}
    assert mounts == {"/datasets": False, "/models": False, "/data": True}


def of_this_host() -> list[str]:
    """What builds on this host were given and images must not keep: secrets and mirrors of .env."""
    file = ROOT / ".env"
    lines = file.read_text().splitlines() if file.is_file() else []
    pairs = (line.partition("=") for line in lines if not line.startswith("#"))
    names = ("PASSWORD", "KEY", "PASS", "INDEX", "INDEX_URL", "MIRROR")
    return [value for name, _, value in pairs if name.endswith(names) and value]


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_does_not_trust_the_private_authorities_of_the_host_that_built_it(
    stack: Stack, service: str
) -> None:
    for file in Path("/usr/local/share/ca-certificates").glob("**/*.crt"):
        line = file.read_text().splitlines()[3]  # amid the certificate, so its own
        found = stack.container(service).exec_run(
            ["grep", "-srlF", line, "/etc/ssl", "/usr/local", "/usr/share/ca-certificates"]
        )
        assert found.output.decode() == "", file


def test_torch_is_compiled_for_the_cards_that_the_minimums_promise(stack: Stack) -> None:
    script = "import torch; print(torch.version.cuda, torch._C._cuda_getArchFlags())"
    output = stack.container("backend").exec_run(["python", "-c", script]).output.decode().split()
    if output[0] == "None":
        return  # torch for the CPU alone
    lowest = min(int(arch.removeprefix("sm_")) for arch in output[1:])
    needed = versions.minimums()
    assert (output[0], f"{lowest // 10}.{lowest % 10}") == (
        needed["cuda"],
        needed["gpu_capability"],
    )


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_holds_no_secret_no_compiler_and_says_what_it_is(
    stack: Stack, service: str
) -> None:
    image = stack.docker.images.get(IMAGES[service])
    text = json.dumps([image.history(), image.attrs["Config"]])
    for trace in ("PIP_INDEX_URL=", "APT_MIRROR=", "BEGIN CERTIFICATE", *of_this_host()):
        assert trace not in text
    labels = image.attrs["Config"]["Labels"]
    assert {
        f"org.opencontainers.image.{key}" for key in ("title", "version", "revision", "licenses")
    } <= set(labels)
    tools = (
        "for t in gcc cc g++ make pip pip3 uv; do command -v $t; done; ls /run/secrets 2>&-; true"
    )
    assert stack.container(service).exec_run(["sh", "-c", tools]).output.decode().strip() == ""


def test_label_studios_own_part_passes_its_tests_in_its_image(stack: Stack) -> None:
    """Our list of banned networks is its own, its guard asks ours, the account is right."""
    output = stack.docker.containers.run(
        IMAGES["label-studio"], ["-m", "unittest", "-v", "test_in_image"], entrypoint="python3",
        working_dir="/tests", remove=True, network_mode="none", stderr=True,
        volumes={str(ROOT / "label-studio" / "tests"): {"bind": "/tests", "mode": "ro"}},
    ).decode()  # fmt: skip
    assert "skipped" not in output
    assert re.search(r"^OK$", output, re.MULTILINE), output


def test_sign_up_is_closed(stack: Stack) -> None:
    session = requests.Session()
    page = session.get(f"{stack.url}/user/signup/", timeout=30)
    form = {"email": "intruder@example.com", "password": "intruder-12345",
            "csrfmiddlewaretoken": session.cookies.get("csrftoken", "")}  # fmt: skip
    answer = session.post(
        f"{stack.url}/user/signup/", data=form, headers={"Referer": page.url}, timeout=30
    )
    assert answer.status_code == 403, answer.status_code
    users = requests.get(f"{stack.url}/api/users/", headers=token(stack), timeout=30).json()
    users = users if isinstance(users, list) else users["results"]
    assert [user["email"] for user in users] == ["tester@example.com"]


@pytest.fixture
def neighbour(stack: Stack) -> Iterator[Any]:
    """Another container on the same network, which writes down who calls it."""
    network = f"{stack.env['COMPOSE_PROJECT_NAME']}_default"
    container = stack.docker.containers.run(
        IMAGES["backend"], ["python", "-m", "http.server", "9090", "--directory", "/projects"],
        detach=True, network=network, name=f"{stack.env['COMPOSE_PROJECT_NAME']}-neighbour",
    )  # fmt: skip
    try:
        container.reload()
        yield container
    finally:
        container.remove(force=True)


def connect(stack: Stack, project: int, url: str) -> requests.Response:
    user, password = stack.auth
    return requests.post(
        f"{stack.url}/api/ml/", headers=token(stack), timeout=60,
        json={"project": project, "url": url, "title": "by hand", "auth_method": "BASIC_AUTH",
              "basic_auth_user": user, "basic_auth_pass": password},
    )  # fmt: skip


def test_label_studio_may_call_the_backend_and_not_its_neighbour(
    stack: Stack, neighbour: Any
) -> None:
    network = next(iter(neighbour.attrs["NetworkSettings"]["Networks"].values()))
    project = stack.api.projects.create(title="guarded", label_config=label_config("person"))
    for host in (network["IPAddress"], neighbour.name, network["Gateway"], "127.0.0.1"):
        refused = connect(stack, project.id, f"http://{host}:9090")
        assert refused.status_code == 403, refused.text
    assert b"GET" not in neighbour.logs()
    assert b"POST" not in neighbour.logs()
    allowed = connect(stack, project.id, "http://backend:9090/m/coco")
    assert allowed.status_code == 201, allowed.text


def test_the_backend_is_reached_at_a_new_address_and_the_old_one_is_not(
    stack: Stack, demo: Any
) -> None:
    """Only the address that the name stands for now is spared, without a restart."""
    network = f"{stack.env['COMPOSE_PROJECT_NAME']}_default"

    def address() -> str:
        container = stack.container("backend")
        return str(container.attrs["NetworkSettings"]["Networks"][network]["IPAddress"])

    old = address()
    stack.run("rm", "--stop", "--force", "backend")
    squatter = stack.docker.containers.create(IMAGES["backend"], ["sleep", "600"])
    stack.docker.networks.get(network).connect(squatter, ipv4_address=None)
    try:
        squatter.start()
        squatter.reload()
        assert squatter.attrs["NetworkSettings"]["Networks"][network]["IPAddress"] == old
        stack.up()
        assert address() != old
        time.sleep(3)  # the spared addresses are looked up anew every two seconds
        assert connect(stack, demo.id, f"http://{old}:9090").status_code == 403
        done = stack.setup(DEMO)
        assert done.returncode == 0, done.stderr
    finally:
        squatter.remove(force=True)
        stack.up()  # also after a failure, which is then the only one


def test_a_connection_that_was_made_by_half_is_repaired(stack: Stack) -> None:
    config = label_config("person")
    project = stack.api.projects.create(title="half made", label_config=config)
    stack.run("stop", "backend")
    try:
        connect(stack, project.id, "http://backend:9090/m/coco")
    finally:
        stack.up()
    stack.api.ml.create(
        project=project.id, url="http://backend:9090", title="other models",
        auth_method="BASIC_AUTH", basic_auth_user=stack.auth[0], basic_auth_pass=stack.auth[1],
    )  # fmt: skip
    done = stack.setup({"title": "half made", "label_config": config, "models": ["coco"],
                        "storage": {"path": "demo"}})  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [row for row in stack.api.ml.list(project=project.id) if row.url.endswith("/m/coco")]
    assert [str(row.state) for row in rows] == ["CO"]
    assert {len(found) for found in stack.predictions(project.id).values()} == {1}


def test_a_token_that_was_reset_is_named_and_the_next_start_puts_it_right(stack: Stack) -> None:
    requests.post(
        f"{stack.url}/api/current-user/reset-token", headers=token(stack), timeout=30
    ).raise_for_status()
    done = stack.setup(DEMO)
    assert done.returncode == 77
    assert "LABEL_STUDIO_API_KEY" in done.stderr
    stack.run("restart", "label-studio")
    stack.up()
    again = stack.setup(DEMO)
    assert again.returncode == 0, again.stderr


def test_a_personal_access_token_is_exchanged_and_fetches_uploads(stack: Stack) -> None:
    made = requests.post(f"{stack.url}/api/token/", headers=token(stack), timeout=30)
    assert made.status_code == 201, made.text
    project = stack.api.projects.create(title="personal", label_config=label_config("person"))
    with (stack.datasets / "demo" / "zidane.jpg").open("rb") as file:
        requests.post(
            f"{stack.url}/api/projects/{project.id}/import",
            files={"file": ("pat.jpg", file)}, headers=token(stack), timeout=30,
        ).raise_for_status()  # fmt: skip
    (task,) = stack.tasks(project.id)
    container = stack.docker.containers.run(
        IMAGES["backend"], detach=True, network=f"{stack.env['COMPOSE_PROJECT_NAME']}_default",
        environment={"LABEL_STUDIO_URL": "http://label-studio:8080",
                     "LABEL_STUDIO_API_KEY": made.json()["token"]},
        volumes={str(stack.folder / "models"): {"bind": "/models", "mode": "ro"}},
    )  # fmt: skip
    try:
        tasks = [{"id": task.id, "data": task.data}]
        body = {"tasks": tasks, "project": "", "label_config": label_config("person")}
        assert len(ask_inside(container, "/predict", body)["results"][0]["result"]) == 2
    finally:
        container.remove(force=True)


def test_the_environment_of_the_seed_starts_the_backend(stack: Stack) -> None:
    """Empty authentication, unknown variables, paths that are not there: it answers."""
    environment = {"BASIC_AUTH_USER": "", "BASIC_AUTH_PASS": "", "LOG_LEVEL": "DEBUG",
                   "ANY": "PARAMETER", "WORKERS": "1", "THREADS": "8",
                   "MODEL_DIR": "/nowhere/models", "LABEL_STUDIO_URL": stack.url,
                   "LABEL_STUDIO_API_KEY": ""}  # fmt: skip
    container = stack.docker.containers.run(
        IMAGES["backend"], detach=True, environment=environment, network_mode="none",
        volumes={str(stack.folder / "models"): {"bind": "/models", "mode": "ro"}},
    )  # fmt: skip
    try:
        assert len(ask_inside(container, "/versions")["versions"]) == len(MODELS)
    finally:
        container.remove(force=True)


@pytest.mark.parametrize("service", SERVICES)
def test_a_killed_service_comes_back_with_nothing_lost(
    stack: Stack, demo: Any, service: str
) -> None:
    before = {name: [p.id for p in found] for name, found in stack.predictions(demo.id).items()}
    stack.container(service).kill()
    stack.up()
    done = stack.setup(DEMO)
    assert done.returncode == 0, done.stderr
    assert {
        name: [p.id for p in found] for name, found in stack.predictions(demo.id).items()
    } == before


def test_setup_that_was_cut_off_is_finished_by_the_next(stack: Stack) -> None:
    """Killed as soon as its project is there: the rest is made, and nothing twice."""
    project = {"title": "cut off", "label_config": label_config("person"), "models": ["coco"],
               "storage": {"path": "demo"}}  # fmt: skip

    def kill() -> None:
        end = time.monotonic() + 60
        while not stack.api.projects.list(title="cut off", page_size=10).items:
            assert time.monotonic() < end
            time.sleep(0.05)
        stack.container("setup").kill()

    with ThreadPoolExecutor() as pool:
        killing = pool.submit(kill)
        assert stack.setup(project).returncode != 0
        killing.result(timeout=60)
    assert sum(map(len, stack.predictions(stack.project("cut off").id).values())) < 5
    done = stack.setup(project)
    assert done.returncode == 0, done.stderr
    stored = stack.predictions(stack.project("cut off").id)
    assert [len(found) for found in stored.values()] == [1] * 5


def test_a_fault_in_models_yaml_stops_the_backend_with_file_line_and_cure(stack: Stack) -> None:
    folder = stack.folder / "wrong"
    folder.mkdir(mode=0o755)
    (folder / "models.yaml").write_text("coco:\n  weights: nowhere.pt\n  conf: high\n")
    container = stack.docker.containers.run(
        IMAGES["backend"], detach=True, network_mode="none",
        volumes={str(folder): {"bind": "/models", "mode": "ro"}},
    )  # fmt: skip
    try:
        assert container.wait(timeout=60)["StatusCode"] == 78
        log = container.logs().decode()
        assert "/models/models.yaml:3: coco.conf: found 'high'" in log
        assert "Traceback" not in log
    finally:
        container.remove(force=True)
