"""YAML files that people write, checked by a JSON Schema; errors name file and line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from ls_yolo.text import nearest

Schema = Literal["models", "projects"]


class ConfigError(ValueError):
    """A configuration file cannot be used. Every line of the message names file, line and fix."""


@dataclass(frozen=True)
class Document:
    """A valid file: its ``data``, and where in the file each part of it stands."""

    data: Any
    source: str
    tree: yaml.Node | None

    def where(self, *path: str | int) -> str:
        """``file:line: path: `` of the value at ``path``, to begin an error with."""
        name = ".".join(map(str, path))
        return f"{self.source}:{_line(self.tree, list(path))}: " + (f"{name}: " if name else "")


class _Loader(yaml.SafeLoader):
    """Safe YAML whose mappings have text keys only, as they are written, each once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be text", key.start_mark
                )
            if key.value in lines:
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"{key.value!r} is here twice, first in line {lines[key.value]}",
                    key.start_mark,
                )
            lines[key.value] = key.start_mark.line + 1
        self.flatten_mapping(node)
        # The text itself: `on`, `010` and `1.10` are names too, and JSON knows no other keys.
        return {key.value: self.construct_object(item, deep=deep) for key, item in node.value}

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        number = super().construct_yaml_float(node)
        if not math.isfinite(number):  # JSON has no such number, and a schema's bounds miss NaN
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value!r} is not a number", node.start_mark
            )
        return number


_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)

_TEXT = "tag:yaml.org,2002:str"
_GUESSED = {
    f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "null", "timestamp", "value")
}


def _keep_text(node: yaml.Node | None, rule: Mapping[str, Any]) -> None:
    """Has the scalars of which the schema ``rule`` says that they are text read as they are
    written, whatever YAML takes them for; nothing at all stays nothing."""
    if isinstance(node, yaml.ScalarNode):
        if "string" in (rule.get("type") or ()) and node.tag in _GUESSED and node.value:
            node.tag = _TEXT
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _keep_text(item, rule.get("items", rule))  # a list of mappings to merge has none
    elif isinstance(node, yaml.MappingNode):
        others = rule.get("additionalProperties")
        for key, item in node.value:
            merged = key.tag == "tag:yaml.org,2002:merge"
            inner = rule if merged else rule.get("properties", {}).get(str(key.value), others)
            if isinstance(inner, Mapping):
                _keep_text(item, inner)


def schema(name: Schema) -> dict[str, Any]:
    """The JSON Schema called ``name``."""
    text = resources.files("ls_yolo").joinpath("schemas", f"{name}.schema.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def load(path: Path, name: Schema) -> Document:
    """The YAML file ``path``, valid by the schema ``name``.

    Raises:
        ConfigError: the file is missing, unreadable, not YAML, or breaks the schema.
    """
    return parse(_text(path), name, str(path))


def load_all(path: Path, name: Schema) -> list[Document]:
    """The documents of the YAML file ``path``, between lines of ``---``, as `load` reads one."""
    return _parse(_text(path), name, str(path))


def parse(text: str, name: Schema, source: str) -> Document:
    """The document ``text``, valid by the schema ``name``; ``source`` names it in errors.

    Raises:
        ConfigError: the text is not YAML or breaks the schema.
    """
    found = _parse(text, name, source)
    if len(found) > 1:
        line = _line(found[1].tree, [])
        raise ConfigError(f"{source}:{line}: not valid YAML: a second document, expected one")
    return found[0]


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: not found; expected a YAML file there") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def _parse(text: str, name: Schema, source: str) -> list[Document]:
    rule = schema(name)
    try:
        # Making data of a tree changes it, and lines are looked up in it afterwards.
        trees = list(yaml.compose_all(text, Loader=_Loader))
        loader = _Loader(text)
        found: list[Any] = []
        while loader.check_node():
            node = loader.get_node()
            _keep_text(node, rule)
            found.append(loader.construct_document(node))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{where}: not valid YAML: {problem}") from None
    documents = [
        Document(data, source, tree)
        for data, tree in zip(found, trees, strict=True)
        if data is not None
    ]
    if not documents:
        raise ConfigError(f"{source}: empty; expected {_expected(rule)}")
    validator = Draft202012Validator(rule)
    faults = [
        _explain(error, one.tree, source)
        for one in documents
        for error in validator.iter_errors(one.data)
    ]
    if faults:
        raise ConfigError("\n".join(text for _, text in sorted(faults)))
    return documents


def _explain(error: ValidationError, tree: yaml.Node | None, source: str) -> tuple[int, str]:
    """The line that a fault is on, and what to say of it."""
    path = list(error.absolute_path)
    rule = error.schema if isinstance(error.schema, Mapping) else {}
    # What may be a secret is not shown.
    shown = "something else" if "writeOnly" in json.dumps(rule) else repr(error.instance)
    text = f"found {shown}, expected {_expected(rule)}"
    if "propertyNames" in error.absolute_schema_path:
        path.append(str(error.instance))  # the key itself is at fault
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = list(rule.get("properties", {}))
        unknown = next(key for key in error.instance if key not in known)
        path.append(unknown)
        text = "is not known" + (nearest(unknown, known) or f"; expected one of {', '.join(known)}")
    elif error.validator == "required" and isinstance(error.instance, dict):
        missing = [key for key in rule["required"] if key not in error.instance]
        text = f"{', '.join(map(repr, missing))} is missing"
    return _line(tree, path), Document(None, source, tree).where(*path) + text


def _expected(rule: Mapping[str, Any]) -> str:
    """What a schema asks for, in words: its own description where it has one."""
    return str(rule.get("description") or rule.get("type") or "something else")


def _line(node: yaml.Node | None, path: list[Any]) -> int:
    """The line, from 1, of the value at ``path``; of the deepest part of it that is there."""
    line = 1 if node is None else node.start_mark.line + 1
    for part in path:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    node, line = value, key.start_mark.line + 1
                    break
            else:
                return line
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line
