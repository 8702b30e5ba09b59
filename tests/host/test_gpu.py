"""The GPU's way into the backend, on a host without one.

NVIDIA's programs are replaced by scripts that say what those say of two GPUs, and the device files
are copies of /dev/null. What is proven is which of them is asked for, who gets it, and that a GPU
on which nothing can be computed is told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.machines import Machine, Outcome, docker

pytestmark = pytest.mark.host

NVIDIA_SMI = """#!/bin/sh
case "$*" in
*query-gpu*) printf 'Stand-in\\nStand-in\\n' ;;
*) printf 'GPU 0: Stand-in (UUID: GPU-%s)\\nGPU 1: Stand-in (UUID: GPU-%s)\\n' 0a 1b ;;
esac
"""
CDI = {
    "cdiVersion": "0.6.0",
    "kind": "nvidia.com/gpu",
    "devices": [
        {
            "name": name,
            "containerEdits": {"deviceNodes": [{"path": f"/dev/nvidia{gpu}"}]},
        }
        for gpu, names in enumerate((["0", "GPU-0a"], ["1", "GPU-1b"]))
        for name in names
    ],
}
NVIDIA_CTK = f"""#!/bin/sh
case "$*" in
--version) echo 'NVIDIA Container Toolkit CLI version 1.17.8' ;;
'cdi generate --output='*)
    file=${{3#--output=}}
    mkdir -p "$(dirname "$file")"
    echo '{json.dumps(CDI)}' >"$file" ;;
'cdi list') printf 'nvidia.com/gpu=%s\\n' 0 1 GPU-0a GPU-1b ;;
'system create-dev-char-symlinks'*) ;;
'runtime configure --runtime=docker')
    python3 - <<'MERGE'
import json, pathlib
file = pathlib.Path("/etc/docker/daemon.json")
found = json.loads(file.read_text())
found["runtimes"] = {{"nvidia": {{"path": "nvidia-container-runtime", "runtimeArgs": []}}}}
file.write_text(json.dumps(found))
MERGE
    ;;
*) echo "stand-in of nvidia-ctk: unknown: $*" >&2; exit 2 ;;
esac
"""


CONTROL = """Package: nvidia-container-toolkit
Version: 1.17.8
Architecture: all
Maintainer: test <test@example.com>
Description: stand-ins
"""


@pytest.fixture(scope="module")
def gpu(host: Machine, site: object) -> Iterator[Machine]:
    """The host with two GPUs in it, and no driver."""
    for number in (0, 1):
        host.root("mknod", "-m", "0666", f"/dev/nvidia{number}", "c", "1", "3")
    yield host
    host.root("rm", "-f", "/dev/nvidia0", "/dev/nvidia1")


@pytest.fixture(scope="module")
def toolkit(host: Machine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables for a bundle with a package of the stand-ins."""
    for path, text in {
        "DEBIAN/control": CONTROL,
        "usr/bin/nvidia-ctk": NVIDIA_CTK,
        "usr/bin/nvidia-container-runtime": '#!/bin/sh\nexec runc "$@"\n',
    }.items():
        host.root("mkdir", "-p", f"/mnt/toolkit/{Path(path).parent}")
        host.write(f"/mnt/toolkit/{path}", text, "0644" if path == "DEBIAN/control" else "0755")
    host.root("dpkg-deb", "--build", "/mnt/toolkit", "/mnt/toolkit.deb")
    bundle = tmp_path_factory.mktemp("toolkit")
    docker("cp", f"{host.name}:/mnt/toolkit.deb", bundle / "toolkit.deb")
    return {"nvidia_toolkit_source": "bundle", "nvidia_toolkit_bundle": str(bundle)}


@pytest.fixture(scope="module")
def driver(gpu: Machine) -> Iterator[Machine]:
    """The host with its driver."""
    gpu.write("/usr/bin/nvidia-smi", NVIDIA_SMI, "0755")
    yield gpu
    gpu.root("rm", "-f", "/usr/bin/nvidia-smi")


def test_a_gpu_that_is_not_there_is_named(host, site, variables):
    outcome = host.playbook(
        "site.yml", "--tags", "nvidia", variables={**variables, "nvidia_enabled": "true"}
    )
    assert outcome.code == 2
    assert "found no NVIDIA GPU on this host's PCI bus" in outcome.message()


def test_a_check_tells_what_would_be_installed_and_does_nothing(gpu, variables):
    wanted = {**variables, "nvidia_install_driver": True, "nvidia_runtime": True}
    with gpu.unchanged():
        outcome = gpu.playbook("site.yml", "--check", "--tags", "nvidia", variables=wanted)
        assert outcome.code == 0, outcome.message()
    assert "the driver: linux-headers-" in outcome.output
    assert "the toolkit, from https://nvidia.github.io" in outcome.output


def test_a_missing_driver_is_named_with_its_fix(gpu, variables):
    """After its packages were installed: one that is small stands for them."""
    chosen = {"nvidia_install_driver": True, "nvidia_driver_packages": ["nvidia-modprobe"]}
    outcome = gpu.playbook("site.yml", "--tags", "nvidia", variables={**variables, **chosen})
    assert outcome.code == 2
    assert "the NVIDIA driver does not run" in outcome.message()
    assert "nvidia_install_driver: true" in outcome.message()
    assert "install ok" in gpu.root("dpkg-query", "-Wf", "${Status}", "nvidia-modprobe")


def test_a_gpu_of_another_number_is_named_with_those_there_are(driver, toolkit, variables):
    chosen = {**variables, **toolkit, "nvidia_gpu_device": "7"}
    outcome = driver.playbook("site.yml", "--tags", "nvidia", variables=chosen)
    assert outcome.code == 2
    assert "found no GPU '7', expected one of 0, 1, GPU-0a, GPU-1b" in outcome.message()


@pytest.fixture(scope="module")
def given(driver: Machine, toolkit: dict[str, str], variables: dict[str, object]) -> Outcome:
    """A run that gives the second GPU to the backend, and tells the engine of the runtime too."""
    chosen = {**variables, **toolkit, "nvidia_gpu_device": "1", "nvidia_runtime": True}
    return driver.playbook("site.yml", "--tags", "nvidia,network,ls_yolo", variables=chosen)


@pytest.fixture(scope="module")
def second_gpu(driver: Machine, given: Outcome) -> Machine:
    """The host after that run."""
    return driver


def test_a_gpu_on_which_nothing_can_be_computed_is_no_silent_cpu(given):
    assert given.code == 2
    assert "the backend was given GPU 1, but torch cannot compute on it" in given.message()
    assert "Found no NVIDIA driver" in given.message()


def test_the_engine_knows_the_runtime_and_what_it_knew_before(second_gpu):
    assert '"nvidia":' in second_gpu.root("docker", "info", "--format", "{{json .Runtimes}}")
    assert json.loads(second_gpu.root("cat", "/etc/docker/daemon.json"))["features"]["cdi"]


def test_the_backend_gets_the_gpu_that_was_chosen_and_no_other(second_gpu):
    seen = second_gpu.container("backend", "sh", "-c", "echo /dev/nvidia*")
    assert seen == "/dev/nvidia1"


def test_label_studio_gets_none(second_gpu):
    seen = second_gpu.container("label-studio", "sh", "-c", "echo /dev/nvidia*")
    assert seen == "/dev/nvidia*"


def test_nobody_is_privileged_for_it(second_gpu):
    for service in ("backend", "label-studio"):
        config = second_gpu.inspect(service)["HostConfig"]
        assert (config["Privileged"], config["CapDrop"]) == (False, ["ALL"])


def test_predictions_stay(second_gpu):
    assert second_gpu.predicted() == second_gpu.tasks()


def test_the_gpus_are_described_anew_at_every_boot(second_gpu):
    second_gpu.root("systemctl", "is-enabled", "ls-yolo-cdi")
    second_gpu.root("rm", "-f", "/var/run/cdi/nvidia.yaml")
    second_gpu.root("systemctl", "restart", "ls-yolo-cdi")
    assert "GPU-1b" in second_gpu.root("cat", "/var/run/cdi/nvidia.yaml")
