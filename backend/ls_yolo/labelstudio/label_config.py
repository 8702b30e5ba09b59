"""A labeling config against the class names of models: what maps, and what does not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from label_studio_sdk.label_interface.interface import LabelInterface

from ls_yolo.errors import RequestError
from ls_yolo.text import nearest


class LabelConfigError(RequestError):
    """A labeling config cannot be used; the message says what was found and expected."""

    status = 400


@dataclass(frozen=True)
class Label:
    """A label of a control, as Label Studio stores it. ``predicted_values``: other class names."""

    value: str
    predicted_values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Control:
    """A control tag that draws regions on an image.

    ``key`` is the name in a task's data that the image's URL is under. ``attributes`` are those of
    the tag, as written.
    """

    tag: str
    from_name: str
    to_name: str
    key: str
    labels: tuple[Label, ...]
    attributes: Mapping[str, str] = field(hash=False)

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
        text = self.attributes.get("model_score_threshold", "").strip()
        if not text:
            return None
        try:
            score = float(text)
        except ValueError:
            score = float("nan")
        if not 0 <= score <= 1:
            raise LabelConfigError(
                f"model_score_threshold of {self.from_name!r}: found {text!r}, "
                "expected a number from 0 to 1"
            )
        return score

    @property
    def skipped(self) -> bool:
        """Whether the control asks to be left alone (``model_skip``)."""
        return self.attributes.get("model_skip", "").strip().lower() in ("1", "true", "yes")


@dataclass(frozen=True)
class Mapped:
    """What became of a control's labels.

    ``labels``: class name to label. ``unmapped``: label that no class stands for, to a hint.
    """

    labels: Mapping[str, str]
    unmapped: Mapping[str, str]


@lru_cache(maxsize=256)
def parse(config: str) -> tuple[Control, ...]:
    """The controls of a labeling config whose object is an image.

    Raises:
        LabelConfigError: the configuration is not XML that Label Studio would take.
    """
    try:
        interface = LabelInterface(config)
        tags = list(interface.controls)
    except Exception as error:  # the SDK raises whatever its XML and schema libraries raise
        raise LabelConfigError(
            f"the labeling config cannot be read: {error}; expected Label Studio's XML"
        ) from error
    controls = []
    for tag in tags:
        for image in tag.objects or []:
            if image.tag == "Image" and (value := image.value_name):
                controls.append(
                    Control(
                        tag=tag.tag,
                        from_name=tag.name,
                        to_name=image.name,
                        key=value,
                        labels=tuple(
                            _label(text, found) for text, found in (tag.labels_attrs or {}).items()
                        ),
                        attributes={k.lower(): str(v) for k, v in (tag.attr or {}).items()},
                    )
                )
    return tuple(controls)


def _label(value: str, tag: object) -> Label:
    attributes = getattr(tag, "attr", None) or {}
    listed = str(attributes.get("predicted_values", "")).split(",")
    # Label Studio stores the alias of a label that has one; people see, and mean, its value.
    listed.append(str(attributes.get("value", value)))
    names = dict.fromkeys(name for part in listed if (name := part.strip()) and name != value)
    return Label(value, tuple(names))


def plain(name: str) -> str:
    """``name`` without case and separators: what two spellings of one class have in common."""
    return re.sub(r"[\s_-]+", "", name).casefold()


def match(control: Control, names: Iterable[str]) -> Mapped:
    """Maps class ``names`` to the labels of ``control``.

    A class maps to the label of the same name; else to one that is the same without case and
    separators; else to one that lists it in ``predicted_values``, compared in the same two ways.
    """
    exact = {label.value: label.value for label in control.labels}
    loose = {plain(label.value): label.value for label in reversed(control.labels)}
    listed = {name: label.value for label in control.labels for name in label.predicted_values}
    listed_loose = {plain(name): listed[name] for name in reversed(listed)}
    found: dict[str, str] = {}
    names = list(dict.fromkeys(names))
    for name in names:
        same = plain(name)
        label = exact.get(name) or loose.get(same) or listed.get(name) or listed_loose.get(same)
        if label is not None:
            found[name] = label
    used = set(found.values())
    unmapped = {
        label.value: f"no class is called {label.value!r}{nearest(label.value, names)}"
        for label in control.labels
        if label.value not in used
    }
    return Mapped(found, unmapped)
