"""A labeling config against the class names of models: what maps, and what does not."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from lxml import etree

from ls_yolo.errors import RequestError
from ls_yolo.labelstudio.values import VARIABLE, resolve, where
from ls_yolo.text import nearest

OBJECTS = frozenset(
    "audio audioplus chat hypertext image list paragraphs pdf table text timeseries video".split()  # noqa: SIM905
)
"""Tags that show a task's data, in small letters."""


class LabelConfigError(RequestError):
    """A labeling config cannot be used; the message says what was found and expected."""

    status = 400


SHAPES = frozenset("rectangle polygon brush bitmask ellipse keypoint videorectangle".split())  # noqa: SIM905
"""Tags, in small letters, that draw without labels of their own: a Labels tag beside has them."""


@dataclass(frozen=True)
class Label:
    """A label of a control, as Label Studio stores it.

    ``predicted_values``: other class names. ``path``: where labels are nested, what is stored: the
    label after those that it lies in; ``value`` is then the path as one text. ``point``: which of a
    body's points it names (``model_index``).
    """

    value: str
    predicted_values: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    point: int | None = None

    @property
    def name(self) -> str:
        """What a class may be called to be this label's."""
        return self.path[-1] if self.path else self.value


@dataclass(frozen=True)
class Repeat:
    """A Repeater: ``on`` is the value of the list that it goes through, ``flag`` the text in its
    tags that stands for the number, from 0."""

    on: str
    flag: str


@dataclass(frozen=True)
class Control:
    """A control tag, and one object tag that it draws on.

    ``value`` is where the object is in a task's
    data, in Label Studio's language (see `values`); ``many``: it is a list (``valueList``).
    ``attributes`` are those of the control, ``object_attributes`` those of the object, as written,
    their names in small letters. ``own`` is the value of labels that each task brings, empty where
    there are none. ``repeats`` are the Repeaters around the control, the outermost first.
    ``labels_from`` is the name of the Labels tag that ``labels`` are of, empty where they are the
    control's own.
    """

    tag: str
    from_name: str
    to_name: str
    object_tag: str
    value: str
    labels: tuple[Label, ...]
    attributes: Mapping[str, str] = field(default_factory=dict, hash=False)
    many: bool = False
    own: str = ""
    repeats: tuple[Repeat, ...] = ()
    labels_from: str = ""
    object_attributes: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def of_video(self) -> bool:
        """Whether it draws on a video."""
        return self.object_tag.lower() == "video"

    @property
    def model_path(self) -> str:
        """The model that this control asks for, empty where it asks for none."""
        return self.attributes.get("model_path", "").strip()

    @property
    def score_threshold(self) -> float | None:
        """The lowest score of a region, 0 to 1; None where the control does not say.

        Raises:
            LabelConfigError: the attribute is not a number from 0 to 1.
        """
        return self.number("model_score_threshold", 0, 1)

    @property
    def skipped(self) -> bool:
        """Whether the control asks to be left alone (``model_skip``), or is filled in for each
        region that people choose (``perRegion``)."""
        return self.flag("model_skip") or self.flag("perregion")

    def flag(self, name: str, default: bool = False) -> bool:
        """Whether the attribute ``name`` says yes; ``default`` where it says nothing."""
        text = self.attributes.get(name, "").strip().lower()
        return text in ("1", "true", "yes") if text else default

    def number(self, name: str, low: float = -math.inf, high: float = math.inf) -> float | None:
        """The number from ``low`` to ``high`` in the attribute ``name``; None where there is none.

        Raises:
            LabelConfigError: the attribute is something else.
        """
        text = self.attributes.get(name, "").strip()
        if not text:
            return None
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not (low <= number <= high and math.isfinite(number)):
            least = f" of {low:g} or more" if low > -math.inf else ""
            expected = f" from {low:g} to {high:g}" if high < math.inf else least
            raise LabelConfigError(
                f"{name} of {self.from_name!r}: found {text!r}, expected a number{expected}"
            )
        return number


@dataclass(frozen=True)
class Mapped:
    """What became of a control's labels.

    ``labels``: class name to label. ``unmapped``: label that no class stands for, to a hint.
    ``classes``: label to what of the model stands for it.
    """

    labels: Mapping[str, str]
    unmapped: Mapping[str, str]
    classes: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Shown:
    """An image that a task shows, and the control as it is there: numbered, with its labels.

    ``index``: its place in a ``valueList``, else None. ``url`` is empty where ``fault`` says why
    there is none.
    """

    control: Control
    index: int | None
    url: str
    fault: str = ""


def shown(control: Control, data: Any) -> list[Shown]:
    """What ``control`` draws on in the task whose data is ``data``, as Label Studio's page has it:
    an image for each item of a ``valueList`` and of a Repeater's list, else one."""
    return [image for one in _repeated(control, data) for image in _images(one, data)]


def _repeated(control: Control, data: Any) -> Iterator[Control | Shown]:
    if not control.repeats:
        yield control
        return
    first, *rest = control.repeats
    items = resolve(first.on, data)
    if not isinstance(items, list):
        yield Shown(control, None, "", _fault(first.on, items, "a list"))
        return
    for number in range(len(items)):

        def numbered(text: str, number: int = number) -> str:
            return text.replace(first.flag, str(number))

        one = replace(
            control,
            from_name=numbered(control.from_name),
            to_name=numbered(control.to_name),
            value=numbered(control.value),
            own=numbered(control.own),
            labels_from=numbered(control.labels_from),
            repeats=tuple(replace(repeat, on=numbered(repeat.on)) for repeat in rest),
        )
        yield from _repeated(one, data)


def _images(control: Control | Shown, data: Any) -> list[Shown]:
    if isinstance(control, Shown):
        return [control]
    if control.own:
        rows = resolve(control.own, data)
        if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
            return [Shown(control, None, "", _fault(control.own, rows, "a list of labels"))]
        own = _labels(control.tag, control.attributes, map(_row, rows))
        control = replace(control, labels=control.labels + own)
    found = resolve(control.value, data)
    what = "a video" if control.of_video else "an image"
    # Of a list under `value` the page shows the first; one text under `valueList` is a list of it.
    items: Sequence[Any] = found if isinstance(found, list) else [found]
    return [
        Shown(control, number if control.many else None, item)
        if isinstance(item, str) and item
        else Shown(control, None, "", _fault(control.value, item, f"the URL of {what}"))
        for number, item in enumerate((items if control.many else items[:1]) or [None])
    ]


def _fault(value: str, found: Any, expected: str) -> str:
    said = repr(found) if found is None or found == "" else type(found).__name__
    return f"{where(value)}: found {said}, expected {expected}"


@lru_cache(maxsize=256)
def parse(config: str) -> tuple[Control, ...]:
    """The controls of a labeling config, one for each object that they draw on.

    Tags and attributes are read as Label Studio's page does: in any case, in any namespace, and a
    control without ``toName`` is that of the only object.

    Raises:
        LabelConfigError: the configuration is not XML that Label Studio would take, or asks for
            what no task can have.
    """
    try:
        # As bytes, since a text with an encoding declaration is refused.
        parser = etree.XMLParser(resolve_entities=False, no_network=True)
        root = etree.fromstring(config.encode(), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise LabelConfigError(
            f"the labeling config cannot be read: {error}; expected Label Studio's XML"
        ) from None
    tags = [_Tag.read(element) for element in root.iter(etree.Element)]
    named = [tag for tag in tags if tag.attributes.get("name")]
    objects = {tag.attributes["name"]: tag for tag in named if tag.name in OBJECTS and tag.value}
    only = next(iter(objects)) if len(objects) == 1 else ""
    found = [
        _control(tag, to_name, objects[to_name])
        for tag in named
        if tag.name not in OBJECTS and tag.name not in ("label", "choice")
        for to_name in (tag.attributes.get("toname") or only).split(",")
        if to_name in objects
    ]
    beside = {(one.to_name, one.repeats): one for one in reversed(found) if _is(one, "labels")}
    return tuple(_with_labels(one, beside.get((one.to_name, one.repeats))) for one in found)


def _is(control: Control, tag: str) -> bool:
    return control.tag.lower() == tag


def _with_labels(control: Control, beside: Control | None) -> Control:
    """``control`` with the labels of the Labels tag ``beside`` where it has none of its own."""
    if beside is None or control.tag.lower() not in SHAPES:
        return control
    own, labels = beside.own, beside.labels
    return replace(control, labels=labels, own=own, labels_from=beside.from_name)


@dataclass(frozen=True, eq=False)
class _Tag:
    """An element and its attributes, whose names are in small letters, as is ``name``."""

    element: Any
    tag: str
    attributes: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.tag.lower()

    @classmethod
    def read(cls, element: Any) -> _Tag:
        attributes = {str(key).lower(): str(text) for key, text in element.attrib.items()}
        return cls(element, etree.QName(element).localname, attributes)

    @property
    def value(self) -> str:
        return self.attributes.get("valuelist") or self.attributes.get("value", "")

    @property
    def nodes(self) -> list[_Node]:
        """The labels in it, whatever else is around them."""
        found: list[_Node] = []
        for element in self.element.iterchildren(etree.Element):
            tag = _Tag.read(element)
            inside = tag.nodes
            found += [(tag.attributes, inside)] if tag.name in ("label", "choice") else inside
        return found

    @property
    def repeats(self) -> tuple[Repeat, ...]:
        around = [_Tag.read(element) for element in self.element.iterancestors()]
        return tuple(
            Repeat(tag.attributes.get("on", ""), tag.attributes.get("indexflag", "{{idx}}"))
            for tag in reversed(around)
            if tag.name == "repeater"
        )


_Node = tuple[Mapping[str, Any], Sequence["_Node"]]
"""What a label is made of: its attributes, in small letters, and the labels in it."""


def _control(tag: _Tag, to_name: str, shows: _Tag) -> Control:
    name, repeats, value = tag.attributes["name"], tag.repeats, shows.value
    if "$" in value and not VARIABLE.search(value):
        raise LabelConfigError(
            f"value of {to_name!r}: found {value!r}, expected $ and a name of the letters a to z, "
            "digits and _: Label Studio's page reads no other"
        )
    for repeat in repeats:
        value = value.replace(repeat.flag, "0")
        if repeat.flag not in name:
            raise LabelConfigError(
                f"name of {name!r}: found no {repeat.flag}, expected it in each name in a Repeater"
            )
    if shows.repeats != repeats[: len(shows.repeats)] or re.search(r"\$[^ ]*[{}]", value):
        raise LabelConfigError(
            f"toName of {name!r}: {to_name!r} is numbered by a Repeater, expected the control "
            "inside the same Repeater"
        )
    return Control(
        tag=tag.tag,
        from_name=name,
        to_name=to_name,
        object_tag=shows.tag,
        value=shows.value,
        many=bool(shows.attributes.get("valuelist")),
        labels=_labels(tag.tag, tag.attributes, tag.nodes),
        attributes=tag.attributes,
        own=tag.attributes.get("value", ""),
        repeats=repeats,
        object_attributes=shows.attributes,
    )


def _row(row: Mapping[str, Any]) -> _Node:
    """A label that a task brings."""
    inside = row.get("children")
    rows = [one for one in inside if isinstance(one, Mapping)] if isinstance(inside, list) else []
    return row, [_row(one) for one in rows]


def _labels(tag: str, attributes: Mapping[str, str], nodes: Iterable[_Node]) -> tuple[Label, ...]:
    """The labels of a control: what is in it, or what it is to count (``model_count``)."""
    kind = tag.lower()
    if kind in ("number", "rating"):
        counted = attributes.get("model_count", "").split(",")
        return tuple(Label(name) for part in dict.fromkeys(counted) if (name := part.strip()))
    if kind == "taxonomy":
        found = list(_nested(nodes, attributes.get("leafsonly", "").lower() != "true"))
    elif kind == "choices" and attributes.get("allownested", "").lower() == "true":
        found = list(_nested(nodes, False))
    else:
        found = [label for own, _ in nodes if (label := _label(own))]
    return tuple({label.value: label for label in found}.values())


def _nested(nodes: Iterable[_Node], parents: bool, above: tuple[str, ...] = ()) -> Iterator[Label]:
    """Labels with their paths. ``parents``: also those that others lie in."""
    for attributes, inside in nodes:
        label = _label(attributes)
        if label is None:
            continue
        path = (*above, label.value)
        if parents or not inside:
            yield replace(label, value=" / ".join(path), path=path)
        yield from _nested(inside, parents, path)


def _label(attributes: Mapping[str, Any]) -> Label | None:
    """A label by what Label Studio stores it as: its alias where it has one, which people do not
    see; they see, and mean, its value."""
    value = str(attributes.get("value") or "")
    stored = str(attributes.get("alias") or value)
    listed = [*str(attributes.get("predicted_values") or "").split(","), value]
    names = dict.fromkeys(name for part in listed if (name := part.strip()) and name != stored)
    index = str(attributes.get("model_index", "")).strip()
    point = int(index) if re.fullmatch("[0-9]{1,4}", index) else None
    return Label(stored, tuple(names), point=point) if stored else None


def plain(name: str) -> str:
    """``name`` without case and separators: what two spellings of one class have in common."""
    folded = unicodedata.normalize("NFC", name).casefold()
    return unicodedata.normalize("NFC", re.sub(r"[\s_-]+", "", folded))


def _same(name: str) -> str:
    """``name`` in one Unicode form: what two encodings of one text have in common."""
    return unicodedata.normalize("NFC", name)


def match(control: Control, names: Iterable[str]) -> Mapped:
    """Maps class ``names`` to the labels of ``control``.

    A class maps to the label of the same name; else to one that is the same without case and
    separators; else to one that lists it in ``predicted_values``, compared in the same two ways.
    """
    exact = {_same(label.name): label.value for label in reversed(control.labels)}
    loose = {plain(label.name): label.value for label in reversed(control.labels)}
    listed = {
        _same(name): label.value for label in control.labels for name in label.predicted_values
    }
    listed_loose = {plain(name): listed[name] for name in reversed(listed)}
    found: dict[str, str] = {}
    names = list(dict.fromkeys(names))
    for name in names:
        text, same = _same(name), plain(name)
        label = exact.get(text) or loose.get(same) or listed.get(text) or listed_loose.get(same)
        if label is not None:
            found[name] = label
    classes: dict[str, list[str]] = {}
    for name, value in found.items():
        classes.setdefault(value, []).append(name)
    unmapped = {
        label.value: f"no class is called {label.name!r}{nearest(label.name, names)}"
        for label in control.labels
        if label.value not in classes
    }
    return Mapped(found, unmapped, classes)
