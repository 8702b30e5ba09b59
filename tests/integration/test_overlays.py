"""GPU, LAN addresses and PostgreSQL, on this machine's engine and kernel."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

import compose
from conftest import IMAGES, ROOT, lacking
from dev import check_compose
from installation import Installation, installation
from lib import settings

pytestmark = pytest.mark.docker

# A segment of the test's own; its other end is a namespace, which is the third machine.
SUBNET, GATEWAY, THIRD = "192.168.213.0/24", "192.168.213.1", "192.168.213.7"
STUDIO, BACKEND = "192.168.213.130", "192.168.213.129"
GET = """
import base64, json, sys, urllib.error, urllib.request as u
request = u.Request(sys.argv[1])
if sys.argv[2]:
    request.add_header("Authorization", "Basic " + base64.b64encode(sys.argv[2].encode()).decode())
try:
    print(u.urlopen(request, timeout=20).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


def ip(*words: str) -> str:
    return subprocess.run(
        ["ip", *words], check=True, capture_output=True, text=True
    ).stdout  # fmt: skip


def config(names: list[str], **changes: str) -> subprocess.CompletedProcess[str]:
    """Compose's answer to these files with the defaults, secrets made up, and ``changes``."""
    values = {s["name"]: s["default"] or "x" * 40 for s in settings.declared() if not s["fixed"]}
    line = compose.with_files(names, "config", "--format", "json")
    line = [word if word != str(settings.ENV_FILE) else os.devnull for word in line]
    given = {**os.environ, **values, "MACVLAN_PARENT": "eth0", "MODEL_CLASS": "", **changes}
    environment = compose.environment(given)
    return subprocess.run(line, env=environment, capture_output=True, text=True)


def rendered(names: list[str]) -> Any:
    done = config(names)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_lan_is_refused_without_a_password_whoever_runs_compose() -> None:
    assert config(["compose.yaml"], BASIC_AUTH_PASS="").returncode == 0
    done = config(["compose.yaml", "macvlan.yaml"], BASIC_AUTH_PASS="")
    assert done.returncode != 0
    assert "BASIC_AUTH_PASS" in done.stderr
    assert "MACVLAN needs a password" in done.stderr


@pytest.mark.parametrize("names", check_compose.combinations(), ids=lambda names: "+".join(names))
def test_every_choice_of_overlays_gives_each_service_its_own_and_no_privilege(
    names: list[str],
) -> None:
    config = rendered(names)
    services = config["services"]
    assert set(services) - {"label-studio", "backend", "setup"} == (
        {"postgres"} if "postgres.yaml" in names else set()
    )
    for name, service in services.items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert not service.get("privileged") and not service.get("cap_add"), name
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", ())), name
        asked = "deploy" in service or "runtime" in service
        assert asked == (name == "backend" and any(n.startswith("gpu") for n in names)), name
        on_lan = "lan" in service["networks"]
        assert on_lan == ("macvlan.yaml" in names and name in ("label-studio", "backend")), name
        assert "default" in service["networks"], name
    if "gpu.yaml" in names:
        (device,) = services["backend"]["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["device_ids"]) == ("cdi", ["nvidia.com/gpu=0"])
    if "macvlan.yaml" in names:
        assert services["label-studio"]["networks"]["lan"]["ipv4_address"] == "192.168.103.130"
        assert services["backend"]["networks"]["lan"]["ipv4_address"] == "192.168.103.129"
        assert config["networks"]["lan"]["driver_opts"]["parent"] == "eth0"
    database = services["label-studio"]["environment"].get("DJANGO_DB")
    assert database == ("postgresql" if "postgres.yaml" in names else None)


class Segment:
    """A cable: one end is on this host, the other in a namespace without any other way out."""

    def __init__(self) -> None:
        number = secrets.token_hex(3)
        self.parent, self.other = f"lsy{number}a", f"lsy{number}b"
        # A process keeps the namespace: it goes with it, whatever happens.
        words = ["unshare", "--net", "sh", "-c", "echo there; exec sleep 3600"]
        self.keeper = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self.keeper.stdout is not None
        self.keeper.stdout.readline()
        try:
            ip("link", "add", self.parent, "type", "veth", "peer", "name", self.other)
            ip("link", "set", self.other, "netns", str(self.keeper.pid))
            ip("link", "set", self.parent, "up")
            self.inside("ip", "addr", "add", f"{THIRD}/24", "dev", self.other)
            self.inside("ip", "link", "set", self.other, "up")
        except BaseException:
            self.close()
            raise

    def inside(self, *words: str) -> str:
        """What a command on the third machine prints."""
        enter = ["nsenter", f"--net=/proc/{self.keeper.pid}/ns/net", *words]
        done = subprocess.run(enter, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, url: str, login: str = "") -> int:
        """The status that the third machine gets."""
        return int(self.inside(sys.executable, "-c", GET, url, login))

    def close(self) -> None:
        self.keeper.kill()
        self.keeper.communicate()
        subprocess.run(["ip", "link", "del", self.parent], capture_output=True, check=False)


@pytest.fixture(scope="module")
def segment() -> Iterator[Segment]:
    if os.geteuid() != 0:
        lacking("a segment of its own needs root: sudo make test-integration")
    try:
        segment = Segment()
    except (OSError, AssertionError, subprocess.CalledProcessError) as error:
        lacking(f"no veth pair and namespace can be made here (iproute2, kernel): {error}")
    try:
        yield segment
    finally:
        segment.close()


@pytest.fixture(scope="module")
def place(segment: Segment) -> Iterator[Installation]:
    """LAN addresses and PostgreSQL at once."""
    settings = {
        "MACVLAN": "1", "MACVLAN_PARENT": segment.parent, "MACVLAN_SUBNET": SUBNET,
        "MACVLAN_GATEWAY": GATEWAY, "LABEL_STUDIO_ADDRESS": STUDIO, "BACKEND_ADDRESS": BACKEND,
        "POSTGRES": "1",
    }  # fmt: skip
    with installation(**settings) as place:
        code, output = place.up()
        assert code == 0, output
        yield place


def run_inside(place: Installation, service: str, *words: str) -> str:
    container: Any = docker.from_env().containers.get(place.containers()[service])
    code, output = container.exec_run(list(words))
    assert code == 0, output.decode()
    return str(output.decode().strip())


def secret(place: Installation, name: str) -> str:
    lines = (place.folder / ".env").read_text().splitlines()
    return next(line for line in lines if line.startswith(f"{name}=")).partition("=")[2]


def test_predictions_are_stored_in_postgresql(place: Installation) -> None:
    assert len(place.predictions()) == 5
    query = ["psql", "-U", "label-studio", "-At", "-c", "SELECT count(*) FROM prediction"]
    assert run_inside(place, "postgres", *query) == "5"
    assert "label_studio.sqlite3" not in run_inside(place, "label-studio", "ls", "/data")


def test_postgresql_asks_everyone_on_the_network_for_the_password(place: Installation) -> None:
    ask = "psql -h postgres -U label-studio -w -Atc 'SELECT 1'"
    right = f"PGPASSWORD={secret(place, 'POSTGRES_PASSWORD')} {ask}"
    assert run_inside(place, "postgres", "sh", "-c", right) == "1"
    # Into one pipe: of two, either may be read first.
    wrong = run_inside(place, "postgres", "sh", "-c", f"{ask} 2>&1 || echo refused")
    assert wrong.endswith("refused")


def test_postgresql_holds_nothing_that_it_does_not_need(place: Installation) -> None:
    found = docker.from_env().containers.get(place.containers()["postgres"]).attrs
    assert found["Config"]["User"] == "999:999"
    assert found["HostConfig"]["ReadonlyRootfs"] and found["HostConfig"]["CapDrop"] == ["ALL"]
    assert not found["HostConfig"]["PortBindings"]
    seen = run_inside(place, "postgres", "sh", "-c", "tr '\\0' '\\n' </proc/1/environ")
    assert secret(place, "POSTGRES_PASSWORD") not in seen


# What a start leaves that is cut off while it writes down, one by one, which migrations its twelfth
# step stands for: the next can neither take that step nor those.
CUT = """
from ls_kit import entrypoint
entrypoint.set_up_django()
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
executor = MigrationExecutor(connection)
targets = executor.loader.graph.leaf_nodes()
executor.migrate(targets, plan=executor.migration_plan(targets)[:12])
MigrationRecorder.Migration.objects.filter(id__gt=15).delete()
"""
USER = """
INSERT INTO htx_user (password, is_superuser, username, email, first_name, last_name, is_staff,
    is_active, date_joined, last_activity, activity_at, phone, avatar)
VALUES ('', false, '', 'a@example.com', '', '', false, true, now(), now(), now(), '', '')
"""


class Cut:
    """A database of its own in the installation's PostgreSQL, whose first start was cut off."""

    def __init__(self, place: Installation) -> None:
        self.place = place
        self.postgres("createdb", "cut")
        code, output = self.python("-c", CUT)
        assert code == 0, output

    def postgres(self, program: str, *words: str) -> str:
        return run_inside(self.place, "postgres", program, "--username", "label-studio", *words)

    def sql(self, statement: str) -> str:
        return self.postgres("psql", "--dbname", "cut", "-qAtc", statement)

    def python(self, *words: str) -> tuple[int, str]:
        found: Any = docker.from_env().containers.get(self.place.containers()["label-studio"])
        code, output = found.exec_run(
            ["/opt/venv/bin/python", *words], environment={"POSTGRE_NAME": "cut"}
        )
        return code, output.decode()

    def start(self) -> tuple[int, str]:
        return self.python("-m", "ls_kit.entrypoint", "prepare")


@pytest.fixture(scope="module")
def cut(place: Installation) -> Cut:
    return Cut(place)


@pytest.mark.parametrize(
    ("theirs", "away"),
    [
        (USER, "DELETE FROM htx_user"),
        ("CREATE TABLE theirs (id integer)", "DROP TABLE theirs"),
    ],
    ids=["a user", "a table of somebody else"],
)
def test_a_first_start_that_was_cut_off_leaves_what_is_somebodys(
    cut: Cut, theirs: str, away: str
) -> None:
    cut.sql(theirs)
    code, output = cut.start()
    assert code == 78
    assert "the database could not be brought up to date" in output
    assert cut.sql("SELECT count(*) FROM django_migrations") == "15"
    cut.sql(away)


def test_a_first_start_that_was_cut_off_begins_anew_where_nobody_has_worked(cut: Cut) -> None:
    code, output = cut.start()
    assert code == 0, output
    assert "nobody has worked here yet: beginning anew" in output
    assert cut.sql("SELECT count(*) FROM htx_user") == "1"


def test_a_database_of_a_newer_label_studio_is_refused_and_stays(cut: Cut) -> None:
    cut.sql("INSERT INTO django_migrations (app, name, applied) VALUES ('tasks', '9999_x', now())")
    code, output = cut.start()
    assert code == 78
    assert "of a newer Label Studio: it has tasks.9999_x" in output
    assert cut.sql("SELECT count(*) FROM htx_user") == "1"


def test_sqlite_is_refused_while_postgresql_has_the_projects(place: Installation) -> None:
    before = place.containers()
    for words in ((), ("setup",)):
        code, output = place.up(*words, POSTGRES="0")
        assert code == 1
        assert "To keep them as they are: POSTGRES=1 in .env" in output
    assert place.containers() == before


def test_a_third_machine_opens_both_at_their_own_addresses(
    place: Installation, segment: Segment
) -> None:
    assert segment.get(f"http://{STUDIO}:8080/health") == 200
    assert segment.get(f"http://{BACKEND}:9090/health") == 200
    assert segment.get(f"http://{BACKEND}:9090/versions") == 401
    login = f"label-studio:{secret(place, 'BASIC_AUTH_PASS')}"
    assert segment.get(f"http://{BACKEND}:9090/versions", login) == 200


def test_the_services_speak_over_the_bridge_and_go_out_by_it(place: Installation) -> None:
    bridge = docker.from_env().networks.get(f"{place.name}_default").attrs["IPAM"]["Config"][0]
    prefix = bridge["Gateway"].rpartition(".")[0]
    script = (
        "import socket; print(socket.gethostbyname('backend'))\n"
        "for line in open('/proc/net/route').readlines()[1:]:\n"
        "    f, t, g = line.split()[:3]\n"
        "    if t == '00000000': print(socket.inet_ntoa(bytes.fromhex(g)[::-1]))"
    )
    address, *routes = run_inside(place, "label-studio", "python3", "-c", script).splitlines()
    assert address.startswith(f"{prefix}.")
    assert routes == [bridge["Gateway"]]


def test_the_cable_may_be_out(place: Installation, segment: Segment) -> None:
    ip("link", "set", segment.parent, "down")
    try:
        code, output = place.up("setup")
    finally:
        ip("link", "set", segment.parent, "up")
    assert code == 0, output
    assert "5 tasks, each with a stored prediction" in output


def test_a_second_one_changes_nothing(place: Installation) -> None:
    before = place.containers(), place.predictions()
    code, output = place.up()
    assert code == 0, output
    assert (place.containers(), place.predictions()) == before


def test_an_address_that_another_machine_has_is_refused_before_anything_changes(
    place: Installation, segment: Segment
) -> None:
    before = place.containers()
    code, output = place.up(BACKEND_ADDRESS=THIRD)
    mac = json.loads(segment.inside("ip", "-json", "link", "show", segment.other))[0]["address"]
    assert code == 1
    assert f"{THIRD}: the machine {mac} has it" in output
    assert place.containers() == before


def test_another_address_is_taken(place: Installation, segment: Segment) -> None:
    code, output = place.up(BACKEND_ADDRESS="192.168.213.131")
    assert code == 0, output
    assert segment.get("http://192.168.213.131:9090/health") == 200


def test_another_gateway_makes_the_network_anew(place: Installation, segment: Segment) -> None:
    """Compose alone would go on with the old one."""
    code, output = place.up(MACVLAN_GATEWAY="192.168.213.254")
    assert code == 0, output
    (config,) = docker.from_env().networks.get(f"{place.name}_lan").attrs["IPAM"]["Config"]
    assert config["Gateway"] == "192.168.213.254"
    assert segment.get(f"http://{STUDIO}:8080/health") == 200


def test_down_and_destroy_leave_nothing_though_the_settings_are_off(place: Installation) -> None:
    off = {**place.environment, "MACVLAN": "0", "POSTGRES": "0"}
    client = docker.from_env()
    volumes = {f"{place.name}_{name}-data" for name in ("label-studio", "backend", "postgres")}

    def run(*words: str, **more: str) -> None:
        subprocess.run(
            [sys.executable, *words], cwd=ROOT, env={**off, **more}, check=True, capture_output=True
        )  # fmt: skip

    run("scripts/compose.py", "down")
    assert place.containers() == {}
    assert not client.networks.list(names=[f"{place.name}_lan", f"{place.name}_default"])
    assert volumes <= {volume.name for volume in client.volumes.list()}
    # A backup that was killed before its container began.
    client.containers.create(
        IMAGES["label-studio"], volumes=[f"{place.name}_label-studio-data:/data"]
    )
    run("scripts/destroy.py", FORCE="1")
    assert not volumes & {volume.name for volume in client.volumes.list()}


# GPU


class Engine:
    """An engine of its own, so that this machine's keeps its settings: it reads a made-up CDI
    specification of two GPUs, each a device node and a variable.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = f"unix://{folder}/docker.sock"
        self.process: subprocess.Popen[bytes] | None = None
        self.env_file = folder / ".env"
        self.env_file.write_text("LABEL_STUDIO_USERNAME=a@example.com\n")
        self.environment = {
            **os.environ, "DOCKER_HOST": self.socket, "LS_YOLO_ENV_FILE": str(self.env_file),
            "COMPOSE_PROJECT_NAME": "ls-yolo-test-gpu", "GPU": "1", "TORCH_INDEX": "",
            "LABEL_STUDIO_PASSWORD": "x" * 24, "LABEL_STUDIO_API_KEY": "x" * 40,
            "BASIC_AUTH_USER": "label-studio", "BASIC_AUTH_PASS": "x" * 32,
            "DATASETS_DIR": str(folder), "MODELS_DIR": str(folder), "PROJECTS_DIR": str(folder),
        }  # fmt: skip
        (folder / "cdi").mkdir()
        (folder / "cdi" / "made-up.yaml").write_text(
            "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n"
            + "".join(
                f'- name: "{n}"\n  containerEdits:\n    env: [MADE_UP_GPU={n}]\n'
                f"    deviceNodes: [{{path: /dev/made-up-{n}, hostPath: /dev/null}}]\n"
                for n in (0, 1)
            )
        )

    def start(self, cdi: bool) -> None:
        config = {"features": {"cdi": cdi}, "cdi-spec-dirs": [str(self.folder / "cdi")]}
        (self.folder / "daemon.json").write_text(json.dumps(config))
        daemon = shutil.which("dockerd", path="/usr/sbin:/usr/bin:/usr/local/bin")
        assert daemon
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    # In a network of its own: two engines in one would undo each other's bridges.
                    "unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh",
                    daemon, "--config-file", str(self.folder / "daemon.json"),
                    "--host", self.socket, "--pidfile", str(self.folder / "pid"),
                    "--data-root", str(self.folder / "data"),
                    "--exec-root", str(self.folder / "exec"),
                    "--iptables=false", "--ip6tables=false",
                ],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while self.docker("version", check=False).returncode:
            assert self.process.poll() is None and time.monotonic() < deadline, self.log()
            time.sleep(0.2)

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(60)
            self.process = None

    def log(self) -> str:
        return (self.folder / "log").read_text()[-3000:]

    def run(self, *words: str, check: bool = True, **more: str) -> Any:
        done = subprocess.run(
            words, cwd=ROOT, env={**self.environment, **more}, capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def docker(self, *words: str, check: bool = True) -> Any:
        return self.run("docker", *words, check=check)

    def gpu_check(self, device: str = "0") -> Any:
        """The line of the pre-flight about the GPU: found, state, fix."""
        script = (
            "import json, pathlib, sys; from host import gpu; from lib import settings\n"
            "gpu.FOLDERS = (pathlib.Path(sys.argv[1]),)\n"
            "(check,) = gpu.checks(settings.values(), gpu.gpus(), answers=True)\n"
            "print(json.dumps([check.found, check.state, check.fix]))"
        )
        words = [sys.executable, "-c", script, str(self.folder / "cdi")]
        path = str(ROOT / "scripts")
        return json.loads(self.run(*words, PYTHONPATH=path, GPU_DEVICE=device).stdout)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    if os.geteuid() != 0:
        lacking("an engine of its own needs root: sudo make test-integration")
    folder = Path(tempfile.mkdtemp(prefix="ls-yolo-test-"))
    engine = Engine(folder)
    try:
        yield engine
    finally:
        if engine.process:
            engine.run(sys.executable, "scripts/compose.py", "down", "--volumes", check=False)
        engine.stop()
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if line.split()[1].startswith(f"{folder}/"):
                subprocess.run(["umount", "-l", line.split()[1]], check=False)
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)


def test_an_engine_that_does_not_read_cdi_is_said_to_need_it(engine: Engine) -> None:
    engine.start(cdi=False)
    try:
        found, state, fix = engine.gpu_check()
        assert state == "stop"
        assert "the Docker Engine does not read CDI specifications" in found
        assert '"features": {"cdi": true}' in fix
    finally:
        engine.stop()


def test_a_card_that_is_not_there_is_named_with_those_that_are(engine: Engine) -> None:
    engine.start(cdi=True)
    assert engine.gpu_check("1")[:2] == ["nvidia.com/gpu=1 by CDI", "ok"]
    found, state, fix = engine.gpu_check("7")
    assert (found, state) == ("no 7 among 0, 1", "stop")
    assert "GPU_DEVICE" in fix


def test_the_chosen_card_is_in_the_backend_alone(engine: Engine) -> None:
    for name in ("backend", "label-studio"):
        stand_in(engine, name)
    version = (ROOT / "VERSION").read_text().strip()
    engine.run(sys.executable, "scripts/compose.py", "up", "-d", "--no-deps", "backend",
               "label-studio", GPU_DEVICE="1", LS_YOLO_VERSION=version)  # fmt: skip
    seen = {
        name: engine.run(
            sys.executable, "scripts/compose.py", "exec", "-T", name,
            "sh", "-c", "ls /dev; tr '\\0' '\\n' </proc/1/environ; df -k /dev/shm",
        ).stdout
        for name in ("backend", "label-studio")
    }  # fmt: skip
    assert "made-up-1" in seen["backend"] and "MADE_UP_GPU=1" in seen["backend"]
    assert "made-up-0" not in seen["backend"]
    assert str(4 * 1024 * 1024) in seen["backend"]
    assert "made-up" not in seen["label-studio"].lower()
    privileged = engine.docker("inspect", "-f", "{{.HostConfig.Privileged}}",
                               "ls-yolo-test-gpu-backend-1").stdout.strip()  # fmt: skip
    assert privileged == "false"


def stand_in(engine: Engine, name: str) -> None:
    """The base image under the name of one of ours: what it is given is all that matters here."""
    version = (ROOT / "VERSION").read_text().strip()
    mine = {key: value for key, value in os.environ.items() if key != "DOCKER_HOST"}
    made = subprocess.run(
        ["docker", "create", "debian:trixie-slim", "true"], env=mine, check=True,
        capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    try:
        with subprocess.Popen(["docker", "export", made], env=mine, stdout=subprocess.PIPE) as tar:
            subprocess.run(
                ["docker", "import", "-c", 'CMD ["sleep", "300"]', "-",
                 f"ls-yolo/{name}:{version}"],
                env=engine.environment, stdin=tar.stdout, check=True, capture_output=True,
            )  # fmt: skip
    finally:
        subprocess.run(["docker", "rm", made], env=mine, check=True, capture_output=True)
