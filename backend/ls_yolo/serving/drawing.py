"""What models say of a task's images, as regions of its controls."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from ls_yolo import controls, metrics
from ls_yolo.controls import Region
from ls_yolo.controls.base import Target
from ls_yolo.labelstudio.label_config import Control, Shown
from ls_yolo.results import Classes, Masks, Result
from ls_yolo.serving import merging
from ls_yolo.serving.planning import ControlBinding

Key = tuple[str, str, int | None]
"""What is run once: the address of an image, the version of a model, the side of its slices."""
Drawn = tuple[ControlBinding, Shown]
"""What draws on which image."""


def key(binding: ControlBinding, image: Shown) -> Key:
    """What is run for ``binding`` on ``image``."""
    return image.url, binding.model.version, binding.slice


def regions(
    shown: Sequence[Drawn],
    result_of: Callable[[Key], Result],
    sizes: Mapping[str, tuple[int, int]],
) -> list[Region]:
    """The regions of a task; of what is said of an image as a whole, one answer a control.

    result_of: waits for a result. sizes: width and height in pixels of the image at an address,
    known once a result of it is there.
    """
    used = Counter(key(binding, image) for binding, image in shown)
    results: dict[Key, Result] = {}
    drawn: dict[tuple[str, str, int | None], tuple[Control, list[Region]]] = {}
    for together in _together(shown):
        for binding, image in together:
            at = key(binding, image)
            if at not in results:
                result = result_of(at)
                results[at] = _made_once(result) if used[at] > 1 else result
        control, index = together[0][1].control, together[0][1].index
        kind = controls.of(control)
        assert kind is not None  # `planning.plan` took no other
        index = index if kind.join is None or control.flag("peritem") else None
        with metrics.stage("encode"):
            found = [
                region
                for target, result in _targets(together, results, sizes)
                for region in kind.encode(target, result)
            ]
            _, before = drawn.setdefault((control.from_name, control.to_name, index), (control, []))
            before += found if index is None else [{**one, "item_index": index} for one in found]
    ready: list[Region] = []
    for control, found in drawn.values():
        kind = controls.of(control)
        ready += kind.join(control, found) if kind and kind.join else found
    return ready


def _together(shown: Sequence[Drawn]) -> Iterable[Sequence[Drawn]]:
    """What draws in the same control on the same image."""
    found: dict[tuple[str, str, int | None], list[Drawn]] = {}
    for binding, image in shown:
        at = image.control.from_name, image.control.to_name, image.index
        found.setdefault(at, []).append((binding, image))
    return found.values()


def _targets(
    together: Sequence[Drawn],
    results: Mapping[Key, Result],
    sizes: Mapping[str, tuple[int, int]],
) -> list[tuple[Target, Result]]:
    """What the models of one control draw on one image; as one result where they are merged."""
    found = []
    for binding, image in together:
        labels, size = binding.labels_of(image.control), sizes[image.url]
        result = results[key(binding, image)].above(binding.conf)
        target = Target(
            image.control, labels, binding.model.names, *size, binding.conf, binding.boxes
        )
        found.append((target, result))
    least = together[0][0].merge
    return found if least is None or len(found) == 1 else _merged(found, least)


def _merged(found: list[tuple[Target, Result]], least: float) -> list[tuple[Target, Result]]:
    """``found`` without what another model says better; see `merging.kept`."""
    objects = [(target, part) for target, part in found if not isinstance(part, Classes)]
    if not objects:
        return found
    stay = merging.kept(
        [part.boxes for _, part in objects], [target.labels for target, _ in objects], least
    )
    merged: list[tuple[Target, Result]] = [
        (target, part.take(one)) for (target, part), one in zip(objects, stay, strict=True)
    ]
    return merged + [one for one in found if isinstance(one[1], Classes)]


def _made_once(result: Result) -> Result:
    """``result`` with masks that are kept once they are made: several controls draw them."""
    if not isinstance(result, Masks):
        return result
    return replace(result, masks=[functools.cache(make) for make in result.masks])
