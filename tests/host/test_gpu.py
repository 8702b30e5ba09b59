"""The GPU's way into the backend, on a host without one.

NVIDIA's two programs are replaced by scripts that say what those say of two cards, and the device
files are copies of /dev/null. What is proven is which of them is asked for, and who gets it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.host.machines import Machine

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
            "containerEdits": {"deviceNodes": [{"path": f"/dev/nvidia{card}"}]},
        }
        for card, names in enumerate((["0", "GPU-0a"], ["1", "GPU-1b"]))
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
*) echo "stand-in of nvidia-ctk: unknown: $*" >&2; exit 2 ;;
esac
"""


@pytest.fixture(scope="module")
def card(host: Machine, site: object) -> Iterator[Machine]:
    """The host with two cards in it, and no driver."""
    for number in (0, 1):
        host.root("mknod", "-m", "0666", f"/dev/nvidia{number}", "c", "1", "3")
    yield host
    host.root("rm", "-f", "/dev/nvidia0", "/dev/nvidia1")


@pytest.fixture(scope="module")
def driver(card: Machine) -> Iterator[Machine]:
    """And with a driver and the container toolkit."""
    for name, text in (("nvidia-smi", NVIDIA_SMI), ("nvidia-ctk", NVIDIA_CTK)):
        card.write(f"/usr/bin/{name}", text, "0755")
    yield card
    card.root("rm", "-f", "/usr/bin/nvidia-smi", "/usr/bin/nvidia-ctk")


def test_a_card_that_is_not_there_is_named(host, site, variables):
    outcome = host.playbook(
        "site.yml", "--tags", "nvidia", variables={**variables, "nvidia_enabled": "true"}
    )
    assert outcome.code == 2
    assert "found no NVIDIA GPU on this host's PCI bus" in outcome.message()


def test_a_missing_driver_is_named_with_its_cure(card, variables):
    outcome = card.playbook("site.yml", "--tags", "nvidia", variables=variables)
    assert outcome.code == 2
    assert "the NVIDIA driver does not run" in outcome.message()
    assert "nvidia_install_driver: true" in outcome.message()


def test_a_card_of_another_number_is_named_with_those_there_are(driver, variables):
    outcome = driver.playbook(
        "site.yml", "--tags", "nvidia", variables={**variables, "nvidia_gpu_device": "7"}
    )
    assert outcome.code == 2
    assert "found no GPU '7', expected one of 0, 1, GPU-0a, GPU-1b" in outcome.message()


@pytest.fixture(scope="module")
def second_card(driver: Machine, variables: dict[str, object]) -> Machine:
    """The host after a run that gives the second card to the backend."""
    chosen = {**variables, "nvidia_gpu_device": "1"}
    outcome = driver.playbook("site.yml", "--tags", "nvidia,ls_yolo", variables=chosen)
    assert outcome.code == 0, outcome.message()
    return driver


def test_the_backend_gets_the_card_that_was_chosen_and_no_other(second_card):
    seen = second_card.container("backend", "sh", "-c", "echo /dev/nvidia*")
    assert seen == "/dev/nvidia1"


def test_label_studio_gets_none(second_card):
    seen = second_card.container("label-studio", "sh", "-c", "echo /dev/nvidia*")
    assert seen == "/dev/nvidia*"


def test_nobody_is_privileged_for_it(second_card):
    for service in ("backend", "label-studio"):
        config = second_card.inspect(service)["HostConfig"]
        assert (config["Privileged"], config["CapDrop"]) == (False, ["ALL"])


def test_predictions_go_on(second_card):
    assert second_card.predicted() == second_card.tasks()


def test_the_cards_are_described_anew_at_every_boot(second_card):
    second_card.root("systemctl", "is-enabled", "ls-yolo-cdi")
    second_card.root("rm", "-f", "/var/run/cdi/nvidia.yaml")
    second_card.root("systemctl", "restart", "ls-yolo-cdi")
    assert "GPU-1b" in second_card.root("cat", "/var/run/cdi/nvidia.yaml")


def test_without_a_card_the_backend_is_on_the_cpu_again(second_card, variables):
    without = {**variables, "nvidia_enabled": "false"}
    outcome = second_card.playbook("site.yml", "--tags", "nvidia,ls_yolo", variables=without)
    assert outcome.code == 0, outcome.message()
    seen = second_card.container("backend", "sh", "-c", "echo /dev/nvidia*")
    assert seen == "/dev/nvidia*"
