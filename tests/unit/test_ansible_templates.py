"""What the roles decide and write, for systems that cannot be made here: by facts alone."""

from __future__ import annotations

import base64
import functools
import importlib.util
import json
import os
import re
import shlex
import subprocess

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, init_plugin_loader
from ansible.template import Templar, trust_as_template
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from lib import ROOT, settings

ROLES = ROOT / "ansible" / "roles"
SYSTEMS = {
    "bookworm": {"distribution": "Debian", "version": "12.12", "python": "python3"},
    "trixie": {"distribution": "Debian", "version": "13.2", "python": "python3"},
    "jammy": {"distribution": "Ubuntu", "version": "22.04", "python": "python3.11"},
    "noble": {"distribution": "Ubuntu", "version": "24.04", "python": "python3"},
}


def facts(system="trixie", **more):
    """What Ansible finds on a host."""
    found = SYSTEMS[system]
    return {
        "distribution": found["distribution"],
        "distribution_version": found["version"],
        "distribution_major_version": found["version"].partition(".")[0],
        "distribution_release": system,
        "architecture": "x86_64",
        "service_mgr": "systemd",
        "memtotal_mb": 16000,
        "kernel": "6.12.0-amd64",
        "default_ipv4": {"interface": "eno1"},
        **more,
    }


def trusted(value):
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [trusted(item) for item in value]
    return trust_as_template(value) if isinstance(value, str) else value


@functools.cache
def roles():
    """Defaults and vars of every role, as a play has them."""
    init_plugin_loader()
    filter_loader.add_directory(str(ROLES / "ls_yolo" / "filter_plugins"))
    found = {}
    for kind in ("defaults", "vars"):
        for role in ROLES.iterdir():
            file = role / kind / "main.yml"
            if file.exists():
                found |= trusted(yaml.safe_load(file.read_text()) or {})
    return found


def variables(**more):
    """What a play has, with what an inventory gives on top."""
    return roles() | {
        "ansible_facts": facts(),
        "ansible_check_mode": False,
        "ansible_managed": "Written by Ansible.",
        "nvidia_devices": {"stdout_lines": []},
        "role_path": str(ROLES / "preflight"),
        **more,
    }


def value(expression, **more):
    templar = Templar(loader=DataLoader(), variables=variables(**more))
    return templar.template(trust_as_template("{{ " + expression + " }}"))


def rendered(role, template, **more):
    templar = Templar(loader=DataLoader(), variables=variables(**more))
    return templar.template(trust_as_template((ROLES / role / "templates" / template).read_text()))


def shell_is_fine(script):
    return subprocess.run(["sh", "-n"], input=script, text=True, capture_output=True)


# Pre-flight


def faults(
    system="trixie", free_gb=100, images=None, root="/var/lib/docker", more=None, **inventory
):
    found = value(
        "preflight_faults | selectattr('wrong') | map(attribute='fault') | list",
        ansible_facts=facts(system, **(more or {})),
        preflight_free_gb=free_gb,
        preflight_images={"rc": 2}
        if images is None
        else {"rc": 0, "stdout_lines": [root, *images]},
        **inventory,
    )
    return [" ".join(str(text).split()) for text in found]


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_four_systems_are_taken(system):
    assert faults(system) == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"distribution": "Fedora"}, "system: found Fedora 13, expected Debian 12 or 13, Ubuntu"),
        ({"distribution_major_version": "11"}, "system: found Debian 11, expected Debian 12 or 13"),
        ({"architecture": "aarch64"}, "CPU: found aarch64, expected x86_64"),
        ({"service_mgr": "sysvinit"}, "service manager: found sysvinit, expected systemd"),
        ({"memtotal_mb": 2000}, "memory: found 2.1 GB, expected 4 GB"),
    ],
)
def test_what_cannot_work_is_refused_by_what_was_found_and_expected(more, said):
    found = faults(more={"distribution_version": "13", **more})
    assert len(found) == 1
    assert found[0].startswith(said)


def test_everything_that_is_wrong_is_named_at_once():
    assert len(faults(more={"architecture": "i386", "memtotal_mb": 1000}, free_gb=1)) == 3


def test_less_disk_is_needed_where_the_images_are_there():
    assert "disk: found 10 GB free for /var/lib/docker, expected 20.8 GB" in faults(free_gb=10)[0]
    assert "expected 16.0 GB" in faults(free_gb=10, images=["ls-yolo/label-studio"])[0]
    assert faults(free_gb=10, images=["ls-yolo/backend"]) == []


def test_disk_is_looked_at_where_the_engine_that_runs_keeps_its_data():
    (fault,) = faults(free_gb=1, images=[], root="/big/docker")
    assert "disk: found 1 GB free for /big/docker" in fault
    (fault,) = faults(free_gb=1, preflight_docker_root="/mine/docker")
    assert "for /mine/docker" in fault


def test_another_version_can_be_allowed_but_no_other_system():
    other = {"distribution_major_version": "14", "distribution_version": "14"}
    assert faults(more=other)
    assert faults(more=other, preflight_allow_other_versions=True) == []
    fedora = {**other, "distribution": "Fedora"}
    assert faults(more=fedora, preflight_allow_other_versions=True)


# Engine


@pytest.mark.parametrize("system", SYSTEMS)
def test_scripts_run_with_a_python_that_is_new_enough(system):
    assert value("ls_yolo_python", ansible_facts=facts(system)) == SYSTEMS[system]["python"]


def test_a_proxy_s_login_stands_in_no_command_line():
    proxy = "http://me:it's a secret@proxy:3128"
    given = {"docker_http_proxy": proxy}
    line = [*value("docker_with_proxy", **given), "env"]
    assert "secret" not in " ".join(line)
    for variables, expected in ((given, [f"http_proxy={proxy}", f"https_proxy={proxy}"]), ({}, [])):
        lines = value("docker_proxy_lines", **variables)
        done = subprocess.run(line, input=lines, text=True, capture_output=True, env={}, check=True)
        assert sorted(t for t in done.stdout.splitlines() if "proxy:" in t) == expected


def test_debian_13s_packages_come_only_where_they_are_allowed():
    assert value("docker_sources") == ["docker", "distribution"]
    assert value("docker_sources", docker_allow_newer_suite=True)[-1] == "trixie"
    assert value("docker_sources", docker_source="docker") == ["docker"]


def merged(there, version="26.1.5", **more):
    return value("docker_daemon_merged", docker_daemon_found=there, docker_version=version, **more)


def test_what_stands_in_daemon_json_stays():
    there = {
        "data-root": "/big/docker",
        "features": {"buildkit": True},
        "log-driver": "syslog",
        "log-opts": {"syslog-address": "udp://192.0.2.1:514"},
    }
    found = merged(there)
    assert found == {**there, "features": {"buildkit": True, "cdi": True}}
    assert merged(found) == found  # a second run changes nothing


def test_cdi_is_asked_for_where_the_engine_does_not_have_it_by_itself():
    assert merged({}, "27.5.1")["features"] == {"cdi": True}
    assert "features" not in merged({}, "28.3.0")


def test_mirrors_are_put_before_those_that_are_there():
    found = merged({"registry-mirrors": ["https://b"]}, docker_registry_mirrors=["https://a"])
    assert found["registry-mirrors"] == ["https://a", "https://b"]


def test_a_proxy_is_the_engines_too():
    found = merged({}, docker_http_proxy="http://proxy:3128")
    assert found["proxies"]["https-proxy"] == "http://proxy:3128"
    assert json.dumps(found)


# GPU


@pytest.mark.parametrize(
    ("enabled", "gpus", "wanted"),
    [
        ("auto", ["/dev/nvidia0"], True), ("auto", [], False),
        (False, ["/dev/nvidia0"], False), (True, [], True),
    ],
)  # fmt: skip
def test_a_gpu_is_used_where_there_is_one_unless_told_otherwise(enabled, gpus, wanted):
    found = {"stdout_lines": gpus}
    assert value("nvidia_wanted", nvidia_enabled=enabled, nvidia_devices=found) is wanted


def test_the_driver_is_the_distributions():
    assert "nvidia-driver" in value("nvidia_driver_wanted")
    ubuntu = value("nvidia_driver_wanted", ansible_facts=facts("noble"))
    assert ubuntu[-1].startswith("nvidia-driver-")
    assert value("nvidia_driver_wanted", nvidia_driver_packages=["mine"]) == ["mine"]


def test_debians_entry_is_found_in_whatever_file_it_stands():
    told = [
        "trixie trixie main /etc/apt/sources.list.d/debian.sources:1",
        "trixie trixie contrib /etc/apt/sources.list.d/debian.sources:1",
        "trixie-updates trixie-updates main /etc/apt/updates.list:1",
        "stable trixie main /etc/apt/sources.list:3",
        "nodistro $(CODENAME) main /etc/apt/sources.list.d/node.sources:1",
    ]
    found = value("nvidia_source_files", nvidia_sources={"stdout_lines": told})
    assert found == ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"]


ALL = "contrib non-free non-free-firmware"


@pytest.mark.parametrize(
    ("there", "then"),
    [
        ("deb http://mirror/debian trixie main", ALL),
        ("deb [signed-by=/a.pgp arch=amd64] http://m/d trixie-updates main", ALL),
        ("deb http://mirror/debian stable main non-free-firmware", "contrib non-free"),
        ("Components: main contrib non-free", "non-free-firmware"),
        ("Components: main contrib non-free-firmware non-free", ""),
        ("deb https://example.com/apt any main", ""),
        ("# deb http://mirror/debian trixie main", ""),
        ("Types: deb", ""),
    ],
)  # fmt: skip
def test_a_driver_s_components_stand_in_debians_own_entry_once(there, then):
    """Two entries of one archive that name its key differently would make apt read neither."""
    text = f"{there}\n\nTypes: deb\n"
    for component in ALL.split():
        line = value("nvidia_line", nvidia_component=component)
        text = re.sub(line, rf"\1 {component}", text, flags=re.MULTILINE)
    assert text == f"{f'{there} {then}'.strip()}\n\nTypes: deb\n"


# .env


def env_filters():
    path = ROLES / "ls_yolo" / "filter_plugins" / "ls_yolo.py"
    spec = importlib.util.spec_from_file_location("ls_yolo_filters", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FilterModule().filters()


@given(st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp")), max_size=30))
def test_a_line_of_env_says_what_the_variable_says(text):
    (line,) = env_filters()["env_lines"]({"LABEL_STUDIO_PASSWORD": text})
    assert settings.parse_env(line) == {"LABEL_STUDIO_PASSWORD": text}


def slurped(text):
    return {"content": base64.b64encode(text.encode()).decode()}


def test_what_runs_is_called_as_the_host_s_env_says():
    called = functools.partial(value, "[ls_yolo_project_there, ls_yolo_project]")
    assert called() == ["ls-yolo", "ls-yolo"]
    there = slurped("A=1\nCOMPOSE_PROJECT_NAME='labels'\n")
    assert called(ls_yolo_env_text=there) == ["labels", "labels"]
    given = {"COMPOSE_PROJECT_NAME": "mine"}
    assert called(ls_yolo_env_text=there, ls_yolo_backend_env=given) == ["labels", "mine"]
    assert called(ls_yolo_backend_env=given) == ["mine", "mine"]


# The kit


@pytest.mark.parametrize(
    ("text", "there", "files"),
    [("", "", []), ("\n", "", []), ("\na\nb c\n", "", ["a", "b c"]), ("12ab\na\n", "12ab", ["a"])],
)
def test_the_kit_s_list_says_which_it_is_once_it_is_whole(text, there, files):
    found = value("[ls_yolo_kit_there, ls_yolo_kit_files]", ls_yolo_kit_found=slurped(text))
    assert found == [there, files]


def test_the_kit_s_files_are_those_of_the_archive_without_folders():
    lines = {"stdout_lines": ["./", "./.ci/", "./.ci/run", "VERSION", "docs/a b.md"]}
    assert value("ls_yolo_kit_new", ls_yolo_kit_list=lines) == [".ci/run", "VERSION", "docs/a b.md"]


def test_the_kit_s_folder_may_be_new_or_hold_an_env_that_was_brought_or_a_kit():
    def foreign(found, *names):
        return value(
            "ls_yolo_foreign", ls_yolo_kit_found=found, ls_yolo_there={"stdout_lines": names}
        )

    assert foreign({}) == foreign({}, ".env", ".ansible") == []
    assert foreign(slurped("\n"), "mine.pt") == []
    assert foreign({}, ".env", ".git", "models") == [".git", "models"]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, []),
        ({"ls_yolo_data_dir": "/opt"}, []),
        ({"ls_yolo_data_dir": "/opt/ls-yolo-data"}, []),
        ({"ls_yolo_data_dir": "/opt/ls-yolo/"}, ["/opt/ls-yolo//models"]),
        ({"ls_yolo_dir": "/srv/ls-yolo/models/kit"}, ["/srv/ls-yolo/models"]),
        ({"ls_yolo_backend_env": {"MODELS_DIR": "./models"}}, ["./models"]),
        (
            {"ls_yolo_backend_env": {"DATASETS_DIR": "/opt/ls-yolo/../ls-yolo/x"}},
            ["/opt/ls-yolo/../"],
        ),
        ({"ls_yolo_backend_env": {"PROJECTS_DIR": "../projects"}}, []),
    ],
)
def test_data_and_the_kit_lie_apart(given, found):
    entangled = value("ls_yolo_entangled", **given)
    assert bool(entangled) == bool(found)
    assert all(first.startswith(second) for first, second in zip(entangled, found, strict=False))


def test_true_is_written_in_small_letters():
    assert env_filters()["env_lines"]({"GPU": True, "THREADS": 8}) == ["GPU=true", "THREADS=8"]


def test_what_the_inventory_says_counts_more_than_what_the_roles_say():
    found = value("ls_yolo_settings", ls_yolo_backend_env={"GPU": True, "MODELS_DIR": "/weights"})
    assert found["GPU"] is True
    assert found["MODELS_DIR"] == "/weights"


def test_containers_get_lan_addresses_only_where_they_are_asked_for():
    assert value("ls_yolo_settings")["MACVLAN"] is False
    found = value("ls_yolo_settings", network_macvlan=True, network_parent="eth0.103")
    assert (found["MACVLAN"], found["MACVLAN_PARENT"]) == (True, "eth0.103")
    assert found["LABEL_STUDIO_ADDRESS"] == "192.168.103.130"


# LAN


def test_the_shim_leads_to_the_two_services_and_nowhere_else():
    script = rendered("network", "shim.sh.j2", network_parent="eth0")
    assert shell_is_fine(script).returncode == 0
    assert "type vlan" not in script
    assert "for address in 192.168.103.130 192.168.103.129" in script
    assert '"$address/32" dev ls-yolo-shim src 192.168.103.131' in script


def test_a_vlan_is_made_on_its_parent():
    script = rendered("network", "shim.sh.j2", network_parent="eth0.103")
    assert shell_is_fine(script).returncode == 0
    assert "ip link add link eth0 name eth0.103 type vlan id 103" in script
    assert "link eth0.103 type macvlan mode bridge" in script


def test_without_a_shim_there_is_still_the_vlan():
    script = rendered("network", "shim.sh.j2", network_parent="eth0.103", network_shim=False)
    assert shell_is_fine(script).returncode == 0
    assert "type vlan" in script
    assert "type macvlan" not in script


def test_the_parent_is_the_interface_of_the_default_route_unless_named():
    assert value("network_parent") == "eno1"


# Firewall

# Stand-ins that keep what they are given, and say it when they are asked.
IPTABLES = """#!/bin/sh
case $1 in -S) cat "$0.rules" ;; *) echo "$*" >>"$0.log" ;; esac
"""
RESTORE = """#!/bin/sh
echo "restore $*" >>"${0%-restore}.log"
cat >"${0%-restore}.rules"
"""
NFT = """#!/bin/sh
case $1 in list) cat "$0.rules" ;; -f) cat >"$0.rules" ;; esac
"""


@pytest.fixture(scope="session")
def host_with_rules(tmp_path_factory):
    """Runs firewall.sh on a host with this .env; what it printed, iptables' rules and nftables'."""
    folder = tmp_path_factory.mktemp("firewall")
    for name, text in {"iptables": IPTABLES, "iptables-restore": RESTORE, "nft": NFT}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    def run(env, again="", **inventory):
        for file in (*folder.glob("*.rules"), *folder.glob("*.log")):
            file.unlink()
        given = {"network_parent": "eth0", "ls_yolo_dir": str(folder), **inventory}
        script = rendered("ls_yolo", "firewall.sh.j2", **given)
        for text in filter(None, (env, again)):
            (folder / ".env").write_text(text)
            done = subprocess.run(
                ["sh", "-c", script, "sh", "up"], capture_output=True, text=True,
                env={"PATH": f"{folder}:{os.environ['PATH']}"},
            )  # fmt: skip
        parts = [
            (folder / name).read_text() if (folder / name).exists() else ""
            for name in ("iptables.rules", "nft.rules")
        ]
        return done, *parts

    return run


LAN = "MACVLAN=true\n"
OFFICE = {"ls_yolo_label_studio_from": ["10.0.0.0/8"], "ls_yolo_backend_from": ["10.0.0.9"]}


def test_only_those_listed_may_open_connections(host_with_rules):
    done, published, lan = host_with_rules(
        LAN,
        ls_yolo_label_studio_from=["192.168.104.0/24", "10.1.2.3"],
        ls_yolo_backend_from=["192.168.103.130"],
    )
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in lan.splitlines()]
    # The host itself comes by the shim, 131.
    studio = (
        "ip daddr 192.168.103.130 tcp dport 8080 "
        "ip saddr { 192.168.104.0/24, 10.1.2.3, 192.168.103.131 } accept"
    )
    backend = (
        "ip daddr 192.168.103.129 tcp dport 9090 "
        "ip saddr { 192.168.103.130, 192.168.103.131 } accept"
    )
    assert lines.index(studio) < lines.index(backend) < lines.index("drop")
    assert "--ctorigdstport 8080 -s 10.1.2.3 -j RETURN" in published
    assert "--ctorigdstport 9090 -j DROP" in published


def test_an_empty_list_lets_everyone_in_at_the_services_ports_alone(host_with_rules):
    done, published, lan = host_with_rules(LAN)
    assert done.returncode == 0, done.stderr
    assert "ip daddr 192.168.103.130 tcp dport 8080 accept" in lan
    assert "saddr" not in lan
    assert "-j DROP" not in published
    assert "drop" in lan


@pytest.mark.parametrize(
    ("line", "port"),
    [
        ("", 8080), ("LABEL_STUDIO_PORT=\n", 8080), ("LABEL_STUDIO_PORT=8081\n", 8081),
        ("  export LABEL_STUDIO_PORT = '8081' # mine\n", 8081), ('LABEL_STUDIO_PORT="8081"', 8081),
        ("LABEL_STUDIO_PORT=8081  # mine\n", 8081), ("# LABEL_STUDIO_PORT=8081\n", 8080),
        ("LABEL_STUDIO_PORT=8081\nLABEL_STUDIO_PORT=8082\n", 8082),
        ("LABEL_STUDIO_PORT=8081\nLABEL_STUDIO_PORT=\n", 8080),
        ("MY_LABEL_STUDIO_PORT=8081\n", 8080),
    ],
)  # fmt: skip
def test_the_rules_of_published_ports_follow_the_host_s_env(host_with_rules, line, port):
    """Whatever the inventory knows: a line of ``.env`` that it does not give stays."""
    done, published, lan = host_with_rules(f"A=1\n{line}", **OFFICE)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"ctorigdstport (\d+) -j DROP", published) == [str(port), "9090"]
    assert lan == ""


@limits(deadline=None, max_examples=40)
@given(st.text(st.sampled_from("az09_.:@-"), min_size=1), st.sampled_from(["", "'", '"']))
def test_a_value_of_env_is_read_as_the_kit_reads_it(host_with_rules, value, quote):
    env = f"LABEL_STUDIO_PORT={quote}{value}{quote}\n"
    done, published, _lan = host_with_rules(env, **OFFICE)
    assert done.returncode == 0, done.stderr
    assert f"ctorigdstport {settings.parse_env(env)['LABEL_STUDIO_PORT']} -j DROP" in published


def test_addresses_on_the_lan_are_guarded_by_the_host_s_env(host_with_rules):
    changed = "PARENT=eth0.7\nLABEL_STUDIO_ADDRESS=192.168.103.7\nBACKEND_ADDRESS=192.168.103.8\n"
    done, _published, lan = host_with_rules(LAN + changed, **OFFICE)
    assert done.returncode == 0, done.stderr
    assert 'device "eth0.7"' in lan
    assert "ip daddr { 192.168.103.7, 192.168.103.8 } meta l4proto tcp jump new" in lan
    assert "ip daddr 192.168.103.7 tcp dport 8080 ip saddr { 10.0.0.0/8" in lan
    *_, lan = host_with_rules(f"MACVLAN_{changed}{LAN}", **OFFICE)
    assert 'device "eth0.7"' in lan


def test_rules_that_are_the_same_are_not_said_to_be_new(host_with_rules):
    env = "BACKEND_PORT=9091\n"
    assert host_with_rules(env, **OFFICE)[0].stdout == "the rules are new\n"
    assert host_with_rules(env, again=env, **OFFICE)[0].stdout == ""
    assert host_with_rules("A=1\n", again=env, **OFFICE)[0].stdout == "the rules are new\n"


@pytest.mark.parametrize("name", ["LABEL_STUDIO_PORT", "BACKEND_PORT", "MACVLAN", "BIND_ADDRESS"])
def test_no_rules_are_taken_for_those_of_a_value_that_cannot_be_read(host_with_rules, name):
    done, *_ = host_with_rules(f"{name}=${{OTHER}}\n", **OFFICE)
    assert done.returncode == 1
    assert f"{name} in " in done.stderr and "found ${OTHER}, expected its value" in done.stderr


def test_rules_for_ipv4_are_not_taken_for_an_address_of_ipv6_in_env(host_with_rules):
    assert host_with_rules("BIND_ADDRESS=::\n")[0].returncode == 0
    done, published, _lan = host_with_rules("BIND_ADDRESS=::\n", **OFFICE)
    assert done.returncode == 1
    assert "BIND_ADDRESS in " in done.stderr and "is IPv6" in done.stderr
    assert "-j DROP" in published


def test_rules_change_without_a_moment_in_between():
    """A restart takes the old ones away first, and leaves all open where the new are refused."""
    script = rendered("ls_yolo", "firewall.sh.j2", ls_yolo_backend_from=["10.0.0.0/8"])
    up = script[: script.index("down() {")]
    assert "iptables-restore --noflush" in up
    assert "iptables -F" not in up and "iptables -A" not in up
    assert "nft -f -" in up
    unit = rendered("ls_yolo", "ls-yolo-firewall.service.j2")
    assert "ExecReload=/etc/ls-yolo/firewall.sh up\n" in unit


def test_rules_stand_before_the_engine_starts_containers_and_stay_when_it_stops():
    unit = rendered("ls_yolo", "ls-yolo-firewall.service.j2")
    assert "Before=docker.service ls-yolo.service\n" in unit
    assert "PartOf" not in unit


@pytest.mark.parametrize("wanted", [True, False])
def test_services_start_with_their_rules_alone(wanted):
    unit = rendered("ls_yolo", "ls-yolo.service.j2", ls_yolo_firewall=wanted)
    assert ("Requires=ls-yolo-firewall.service" in unit) is wanted
    assert ("ExecStartPre=+/etc/ls-yolo/firewall.sh up" in unit) is wanted


def backup_command(**inventory):
    """The words that the unit of the backup runs, as systemd has them."""
    unit = rendered("ls_yolo", "ls-yolo-backup.service.j2", **inventory)
    (line,) = re.findall("(?m)^ExecStart=(.*)$", unit)
    return shlex.split(line.replace("%%", "%"))


def test_a_backup_by_itself_is_the_kits_own_with_what_the_inventory_says():
    usual = ["/usr/bin/python3", "scripts/backup.py", "--to", "/srv/ls-yolo/backups"]
    assert backup_command() == [*usual, "--keep", "14"]
    words = backup_command(
        ls_yolo_backup_to="/mnt/my nas/50%", ls_yolo_backup_keep=3, ls_yolo_backup_datasets="true",
        ls_yolo_backup_passphrase="secret", ls_yolo_backup_metrics="/var/x.prom",
    )  # fmt: skip
    assert words[3:] == [
        "/mnt/my nas/50%", "--keep", "3", "--datasets",
        "--passphrase-file", "/etc/ls-yolo/backup-passphrase", "--metrics", "/var/x.prom",
    ]  # fmt: skip
    assert backup_command(ls_yolo_backup_recipient="age1x")[-2:] == ["--recipient", "age1x"]


def test_a_timer_also_makes_the_backup_that_was_missed_while_the_host_was_off():
    timer = rendered("ls_yolo", "ls-yolo-backup.timer.j2", ls_yolo_backup_at="Mon..Fri 02:30")
    assert "OnCalendar=Mon..Fri 02:30\n" in timer
    assert "Persistent=true\n" in timer


def firewall_faults(**inventory):
    found = "preflight_firewall_faults | selectattr('wrong') | map(attribute='fault') | list"
    return [" ".join(str(text).split()) for text in value(found, **inventory)]


def test_sources_that_are_addresses_or_networks_are_taken():
    sources = ["192.168.103.0/24", "10.1.2.3", "0.0.0.0/0"]
    more = {"ls_yolo_backend_env": {"BIND_ADDRESS": "0.0.0.0"}}
    assert firewall_faults(ls_yolo_label_studio_from=sources, **more) == []


@pytest.mark.parametrize(
    "source", ["192.168.103.0/33", "192.168.103.5/24", "office", "fd00::/8", "10.0.0.1-10.0.0.9"]
)
def test_sources_that_are_no_networks_are_named(source):
    (fault,) = firewall_faults(ls_yolo_backend_from=["10.0.0.1", source])
    assert f"found {source}, expected IPv4 addresses and networks" in fault


def test_rules_for_ipv4_are_not_taken_for_a_port_of_ipv6():
    ipv6 = {"ls_yolo_backend_env": {"BIND_ADDRESS": "::"}}
    assert firewall_faults(**ipv6) == []
    (fault,) = firewall_faults(ls_yolo_backend_from=["10.0.0.1"], **ipv6)
    assert fault.startswith("BIND_ADDRESS: found ::, which is IPv6")


def test_an_address_that_the_host_s_env_keeps_is_looked_at_too():
    kept = {"ls_yolo_env_text": slurped("BIND_ADDRESS=::\n")}
    (fault,) = firewall_faults(ls_yolo_backend_from=["10.0.0.1"], **kept)
    assert fault.startswith("BIND_ADDRESS: found ::, which is IPv6")
    given = {"ls_yolo_backend_env": {"BIND_ADDRESS": "0.0.0.0"}}
    assert firewall_faults(ls_yolo_backend_from=["10.0.0.1"], **kept, **given) == []


@pytest.mark.parametrize(
    ("lan", "env", "named"),
    [
        (False, {"MACVLAN": True, "MACVLAN_PARENT": "eth0"}, "MACVLAN, MACVLAN_PARENT"),
        (False, {"MACVLAN": "yes"}, "MACVLAN"),
        (True, {"BACKEND_ADDRESS": "192.168.103.7"}, "BACKEND_ADDRESS"),
        (True, {"BACKEND_ADDRESS": "192.168.103.129", "MACVLAN": True}, ""),
        (False, {"BACKEND_ADDRESS": "192.168.103.7"}, ""),
    ],
)
def test_an_address_on_the_lan_that_no_rule_would_know_is_refused(lan, env, named):
    faults = firewall_faults(network_macvlan=lan, network_parent="eth1", ls_yolo_backend_env=env)
    assert [f"ls_yolo_backend_env: found {named}, expected the variables" in f for f in faults] == (
        [True] if named else []
    )
