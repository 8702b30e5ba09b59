"""Writes what follows from the one list of settings, wherever it stands.

settings           writes the table of docs/settings.md, the environments of compose.yaml, each env
                   of values.yaml, the chart's README.md and schema, and the options of the role
settings --check   changes nothing; exit code 1 if one of them is not what the list says

Needs PyYAML, which is in .venv.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from dev import chart_docs
from dev.blocks import refreshed
from lib import ROOT
from lib.cli import UserError, run_main, say
from ls_yolo.settings import SETTINGS, Reader, Setting, markdown

PAGE = ROOT / "docs" / "settings.md"
COMPOSE = ROOT / "compose" / "compose.yaml"
SPECS = ROOT / "ansible" / "roles" / "ls_yolo" / "meta" / "argument_specs.yml"
SERVICES: tuple[Reader, ...] = ("label-studio", "backend", "setup")
MADE = "Made by scripts/dev/settings.py"


def table() -> str:
    """The settings as a Markdown table."""
    # As HTML, "<port>" would be a tag and not be shown.
    return markdown().replace("<", "&lt;")


def compose(service: Reader) -> str:
    """The environment of a service: what is fixed, what must be set, what has a default."""
    lines = []
    for setting in SETTINGS:
        if service not in setting.readers:
            continue
        how = "which generates it in .env" if setting.generate else "which writes it in .env"
        if setting.fixed:
            value = setting.in_compose or setting.default
        elif setting.may_be_empty:  # but not forgotten
            value = f"${{{setting.name}?run make up, {how}}}"
        elif setting.generate:
            value = f"${{{setting.name}:?run make up, {how}}}"
        else:
            value = f"${{{setting.name}:-}}"
        lines.append(f"{setting.name}: {value}")
    return "\n".join(lines)


def chart(service: Reader) -> str:
    """The env of a service in values.yaml, without secrets and what the chart itself sets."""
    lines = []
    for setting in SETTINGS:
        holders = [s for s in SERVICES if s in setting.readers]
        if setting.secret or setting.fixed or service not in holders:
            continue
        if setting.one_value and service != holders[0]:
            continue
        text = f"-- {setting.in_chart or meaning(setting)}"
        lines += textwrap.wrap(text, 114, initial_indent="# ", subsequent_indent="# ")
        plain = isinstance(yaml.safe_load(setting.default), str)
        lines.append(f"{setting.name}: {setting.default if plain else json.dumps(setting.default)}")
    return "\n".join(lines)


def option(setting: Setting) -> dict[str, Any]:
    """A setting as the role's argument specs describe it."""
    # A path is one of the host: Ansible may not look at it.
    kind = {"url": "str", "path": "str"}.get(setting.type, setting.type)
    found: dict[str, Any] = {"type": kind, "description": meaning(setting)}
    if setting.secret:
        found["no_log"] = True
    elif setting.default:
        found["default"] = setting.parse(setting.default)
    return found


def options() -> str:
    """The options of ``ls_yolo_backend_env``."""
    found = {}
    for setting in SETTINGS:
        if not setting.fixed:
            found[setting.name] = option(setting)
        if setting.renamed_from:
            older = f"The older name of {setting.name}."
            found[setting.renamed_from] = {"type": option(setting)["type"], "description": older}
    return yaml.safe_dump(found, sort_keys=False, width=100).rstrip()


def meaning(setting: Setting) -> str:
    """What a setting means, with its unit."""
    unit = f" In {setting.unit}." if setting.unit and setting.unit != "score" else ""
    return setting.meaning + unit


def block(path: Path, text: str, rows: str, indent: int, what: str = "") -> str:
    """``text`` with ``rows`` between the two marks of ``what``."""
    space = " " * indent
    marks = (f"{space}# {MADE}{what}: begin", f"{space}# {MADE}{what}: end")
    return refreshed(text, textwrap.indent(rows, space), path.name, marks, "\n")


def _compose(text: str) -> str:
    for service in SERVICES:
        text = block(COMPOSE, text, compose(service), 6, f", for {service}")
    return text


def _values(text: str) -> str:
    for service in SERVICES:
        text = block(chart_docs.VALUES, text, chart(service), 4, f", for {service}")
    return text


def _page(text: str) -> str:
    marks = (f"<!-- {MADE} from backend/ls_yolo/settings.py: begin -->", f"<!-- {MADE}: end -->")
    return refreshed(text, table(), PAGE.name, marks)


PARTS: dict[Path, Callable[[str], str]] = {
    PAGE: _page,
    COMPOSE: _compose,
    chart_docs.VALUES: _values,
    SPECS: lambda text: block(SPECS, text, options(), 10),
}


def main(arguments: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only look; exit code 1 on drift")
    checking = parser.parse_args(arguments).check
    wanted = {path: part(path.read_text()) for path, part in PARTS.items()}
    differ = [path for path, text in wanted.items() if path.read_text() != text]
    names = ", ".join(str(path.relative_to(ROOT)) for path in differ)
    if differ and checking:
        raise UserError(
            f"{names}: not what the list of settings says. "
            "Run: .venv/bin/python scripts/dev settings"
        )
    for path in differ:
        path.write_text(wanted[path])
    say(f"{names}: made anew" if differ else "settings: said everywhere as the list says")
    return chart_docs.main(["--check"] if checking else [])


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
