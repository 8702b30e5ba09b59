"""Makes the chart's table of values and its schema from the comments of values.yaml.

chart_docs           writes README.md and values.schema.json of charts/ls-yolo
chart_docs --check   changes nothing; exit code 1 if one of them differs

Above each value stand lines that begin with ``# --``, and, where its default does not say enough
of what is allowed, one with ``# @schema`` and a piece of JSON Schema. A value without a comment is
an error. The settings of the services (the keys of an ``env``) get their bounds from the list of
settings.

Needs PyYAML, which is in .venv.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from dev.blocks import refreshed
from lib import ROOT
from lib.cli import UserError, run_main, say
from ls_yolo import settings

CHART = ROOT / "charts" / "ls-yolo"
VALUES, README, SCHEMA = CHART / "values.yaml", CHART / "README.md", CHART / "values.schema.json"
BEGIN = "<!-- The values are listed by scripts/dev/chart_docs.py; change values.yaml instead. -->"
END = "<!-- End of the values. -->"
MARK, HINT = "# --", "# @schema"
TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array"}


@dataclass(frozen=True)
class Value:
    """A key of values.yaml: its dotted path, what the comment says, its default, and what is below
    it. ``hint`` is a piece of JSON Schema."""

    path: str
    text: str
    default: Any
    hint: dict[str, Any]
    below: list[Value] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


def read(text: str) -> list[Value]:
    """The top-level values of a values.yaml.

    Raises:
        UserError: a value has no comment, or a hint is no JSON.
    """
    faults: list[str] = []
    found = _read(yaml.compose(text, yaml.SafeLoader), text.splitlines(), "", faults)
    if faults:
        raise UserError("values.yaml:\n  " + "\n  ".join(faults))
    return found


def _read(node: Any, lines: list[str], above: str, faults: list[str]) -> list[Value]:
    found = []
    for key, value in node.value:
        path = f"{above}.{key.value}" if above else str(key.value)
        number = key.start_mark.line
        text, hint = _comment(lines, number)
        if not text:
            faults.append(f"line {number + 1}: {path} has no comment that begins with {MARK!r}")
        try:
            schema = json.loads(hint) if hint else {}
        except ValueError as error:
            faults.append(f"line {number + 1}: {path}: {HINT}: {error}")
            schema = {}
        default = yaml.safe_load(yaml.serialize(value))
        # What is written in braces on one line is one value: resources, a probe.
        group = isinstance(value, yaml.MappingNode) and not value.flow_style
        below = _read(value, lines, path, faults) if group else []
        found.append(Value(path, text, default, schema, below))
    return found


def _comment(lines: list[str], number: int) -> tuple[str, str]:
    """The text and the hint of the comment that ends above a line."""
    start = number
    while start and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    block = [line.strip() for line in lines[start:number]]
    first = next((i for i, line in enumerate(block) if line.startswith(MARK)), len(block))
    words, hint = [], ""
    for line in block[first:]:
        if line.startswith(HINT):
            hint = line.removeprefix(HINT).strip()
        else:
            words.append(line.removeprefix(MARK).removeprefix("#").strip())
    return " ".join(words), hint


# The schema


def schema(values: Sequence[Value]) -> dict[str, Any]:
    """The JSON Schema of all values."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart ls-yolo",
        **_object(values),
    }


def _object(values: Sequence[Value]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {value.name: _schema(value) for value in values},
    }


def _schema(value: Value) -> dict[str, Any]:
    if value.below:
        found = _object(value.below)
    elif ".env." in f".{value.path}" and value.name in settings.BY_NAME:
        found = _setting(settings.BY_NAME[value.name])
    elif isinstance(value.default, dict):
        found = {"type": "object"}
    elif value.default is None:
        found = {}
    else:
        found = {"type": TYPES[type(value.default)]}
    return {"description": value.text, **found, **value.hint}


def _setting(setting: settings.Setting) -> dict[str, Any]:
    """What may be written for a setting, as text or as itself; empty: its default."""
    if setting.type == "bool":
        return {"enum": [True, False, "true", "false", ""]}
    if setting.type in ("int", "float"):
        number: dict[str, Any] = {"type": "integer" if setting.type == "int" else "number"}
        if setting.minimum is not None and setting.maximum is not None:
            number |= {"minimum": setting.minimum, "maximum": setting.maximum}
        digits = r"^([0-9]+)?$" if setting.type == "int" else r"^([0-9]+(\.[0-9]+)?)?$"
        return {"anyOf": [number, {"type": "string", "pattern": digits}]}
    if setting.type == "url":
        return {"type": "string", "pattern": "^(https?://.+)?$"}
    if setting.pattern:
        return {"type": "string", "pattern": f"^({setting.pattern})?$"}
    return {"type": "string"}


# The table


def table(values: Sequence[Value]) -> str:
    """The values in Markdown, a heading for each part."""
    plain = [value for value in values if not value.below]
    parts = ["### Names and labels\n", *_rows(plain)] if plain else []
    for value in values:
        if value.below:
            parts += [f"\n### `{value.path}`\n", f"{_cell(value.text)}\n", *_rows(value.below)]
    return "\n".join(parts).strip()


def _rows(values: Sequence[Value]) -> Iterator[str]:
    yield "| value | default | meaning |\n|---|---|---|"
    for value in _leaves(values):
        default = value.default
        if (isinstance(default, str) and "\n" in default) or len(json.dumps(default)) > 90:
            shown = "see values.yaml"
        else:
            shown = f"`{json.dumps(default, ensure_ascii=False)}`"
        yield f"| `{value.path}` | {_cell(shown)} | {_cell(value.text)} |"


def _leaves(values: Sequence[Value]) -> Iterator[Value]:
    for value in values:
        if value.below:
            yield from _leaves(value.below)
        else:
            yield value


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def main(arguments: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only look; exit code 1 on drift")
    options = parser.parse_args(arguments)
    values = read(VALUES.read_text())
    wanted = {
        README: refreshed(README.read_text(), table(values), "README.md", (BEGIN, END)),
        SCHEMA: json.dumps(schema(values), indent=1, ensure_ascii=False) + "\n",
    }
    differ = [
        path for path, text in wanted.items() if not path.exists() or path.read_text() != text
    ]
    names = ", ".join(str(path.relative_to(ROOT)) for path in differ)
    if differ and options.check:
        raise UserError(
            f"{names}: differ from the comments of values.yaml. Run: python3 scripts/dev chart_docs"
        )
    for path in differ:
        path.write_text(wanted[path])
    say(
        f"{names}: made anew" if differ else "the chart's README.md and schema: as values.yaml says"
    )
    return 0


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
