"""Text without secrets: those that are known, in every usual spelling, and what looks like one.

The standard library alone: `make support` uses it on a bare host.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

REDACTED = "[redacted]"
SHORTEST = 4
"""Secrets of fewer characters are left: every other word would hold one, and they keep nothing."""

_NAMES = (
    r"(?:token|secret|passw(?:or)?d|_pass(?![a-z])|fingerprint|api[_-]?key|access[_-]?key"
    r"|account[_-]?key|private[_-]?key|credential|session[_-]?id|csrf)"
)
_PATTERNS = (
    (re.compile(r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END|\Z)"), REDACTED),
    # A header, in any spelling of a mapping.
    (
        re.compile(
            r"(?i)((?:proxy-)?authorization\W{1,6})(?:(?:basic|bearer|token|digest)\s+)?[^\s'\",;}\]]+"
        ),
        r"\1" + REDACTED,
    ),
    (re.compile(r"(?i)(\bcookie[\\'\"]*\s*[:=][ \t]*[\\'\"]*)[^\\'\"\r\n]+"), r"\1" + REDACTED),
    (re.compile(r"\b((?:Bearer|Basic|Token)\s+)(?=\S*[0-9=._-])[\w.~+/=-]{8,}"), r"\1" + REDACTED),
    # A JSON Web Token, cut off ones too: its first part is base64 of '{"'.
    (re.compile(r"eyJ[\w-]{8,}(?:\.[\w-]*){0,2}"), REDACTED),
    # A URL's query, that of a presigned one too; a mapping's entry. A word is tried from its start
    # alone, or a long one without a space would take seconds.
    (
        re.compile(
            rf"(?i)((?:(?<![\w-])[\w-]*(?:{_NAMES}|\bsig)[\w-]*|(?<=[?&])key)=)[^\s&'\"<>]+"
        ),
        r"\1" + REDACTED,
    ),
    (
        re.compile(rf"(?i)(['\"][\w-]*{_NAMES}[\w-]*\\?['\"]\s*:\s*)(\\?['\"])(?:\\.|[^'\"\\])*"),
        r"\1\2" + REDACTED,
    ),
    # User and password of a URL.
    (re.compile(r"(://)[^/?#\s'\"]*@"), r"\1" + REDACTED + "@"),
)
_NAME = re.compile(rf"(?i){_NAMES}")
# Headers are a mapping of any names, each of which may be that of a secret.
_ENTRY = re.compile(
    rf"(?i)(?<![\w-])(?:[\w-]*{_NAMES}[\w-]*|authorization|headers)['\"]?\s*:(?=\s|$)"
)
_REFERENCE = re.compile(r"\s*['\"]?\$\{\w+\}['\"]?\s*(?:#.*)?")


def is_name(name: str) -> bool:
    """Whether what bears this name is a secret, by its sound."""
    return bool(_NAME.search(name))


def spellings(secret: str) -> Iterator[str]:
    """How a secret may stand in a text."""
    quoted = [quote(secret, errors="replace"), quote(secret, safe="", errors="replace"),
              quote_plus(secret, errors="replace")]  # fmt: skip
    yield from (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], html.escape(secret))
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    for text in quoted:
        yield from (text, re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), text))
    # Inside of something longer, as a password after its user: only the digits that are of the
    # secret alone, for each of the three places where it may begin.
    data = secret.encode("utf-8", "replace")
    for before in range(3):
        coded = base64.b64encode(bytes(before) + data).decode()
        inner = coded[(8 * before + 5) // 6 : 8 * (before + len(data)) // 6]
        yield from (inner, inner.replace("+", "-").replace("/", "_"))


class Redactor:
    """Takes secrets out of text: these ``secrets`` in every usual spelling, and what looks so."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {
            text for secret in secrets if len(secret) >= SHORTEST for text in spellings(secret)
        }
        # The longest first: one spelling may be a part of another.
        ordered = sorted(known, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __call__(self, text: str) -> str:
        """``text`` without secrets."""
        if self._known:
            text = self._known.sub(REDACTED, text)
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        return text

    def finds(self, text: str) -> bool:
        """Whether one of the known secrets is in ``text``."""
        # What stands in the place of a secret may itself be like one.
        return bool(self._known and self._known.search(text.replace(REDACTED, "\0")))


def without_entries(text: str) -> str:
    """A YAML file without what stands under names of secrets; references (``${NAME}``) stay.

    By lines, since a bare host has no YAML parser: all that follows such a name on its line goes,
    and the lines below that are further in.
    """
    lines: list[str] = []
    hidden: int | None = None
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip(" -#"))
        if hidden is not None and (not line.strip() or indent > hidden):
            continue
        hidden = None
        entry = _ENTRY.search(line)
        if entry and not _REFERENCE.fullmatch(line, entry.end()):
            hidden = indent
            line = f"{line[: entry.end()]} {REDACTED}"
        lines.append(line)
    return "\n".join(lines) + "\n"
