"""Settings have the same names in Ansible as everywhere: settings.py against the role's options."""

from __future__ import annotations

import textwrap

import yaml

from lib import ROOT, settings

SPECS = ROOT / "ansible" / "roles" / "ls_yolo" / "meta" / "argument_specs.yml"
# A path is one of the host: nothing here may look at it.
TYPES = {"url": "str", "path": "str"}


def option(setting):
    """A setting as ``ls_yolo_backend_env`` must describe it."""
    found = {"type": TYPES.get(setting["type"], setting["type"]), "description": setting["meaning"]}
    if setting["unit"] and setting["unit"] != "score":
        found["description"] += f" In {setting['unit']}."
    if setting["secret"]:
        found["no_log"] = True
    if setting["default"] and not setting["generate"]:
        found["default"] = {"int": int, "float": float, "bool": lambda text: text == "true"}.get(
            found["type"], str
        )(setting["default"])
    return found


def expected():
    return {s["name"]: option(s) for s in settings.declared() if not s["fixed"]}


def as_yaml(options):
    text = yaml.safe_dump(options, sort_keys=False, width=90)
    return textwrap.indent(text, " " * 10)


def found():
    main = yaml.safe_load(SPECS.read_text())["argument_specs"]["main"]
    return main["options"]["ls_yolo_backend_env"]["options"]


def test_every_setting_can_be_given_by_its_name_and_no_other():
    names = list(expected())
    assert list(found()) == names


def test_types_defaults_and_meanings_are_those_of_the_list_of_settings():
    assert found() == expected(), f"the block that is wanted:\n{as_yaml(expected())}"


def test_secrets_are_never_logged():
    secret = {s["name"] for s in settings.declared() if s["secret"]}
    assert {name for name, spec in found().items() if spec.get("no_log")} == secret
