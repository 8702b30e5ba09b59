"""Finds the user's class."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

from ls_yolo.text import nearest

COMPAT = Path(__file__).parent / "compat"
"""The folder of our stand-in for label-studio-ml."""


class ModelClassError(RuntimeError):
    """MODEL_CLASS cannot be served; the message says what was found, expected, and what to do."""


def find(spec: str, root: Path) -> type:
    """The class that ``spec``, ``module:Class``, names; its module may lie in ``root``.

    Python packages may lie in ``root/packages``. What is installed comes first, ours last.

    Raises:
        ModelClassError: there is none, or it is not derived from ``LabelStudioMLBase``.
    """
    module_name, _, name = spec.partition(":")
    for folder in (root, root / "packages", COMPAT):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name == module_name:
            raise ModelClassError(
                f"MODEL_CLASS: found {spec!r}, but no module is called {module_name!r}; "
                f"expected the file {root / (module_name.replace('.', '/') + '.py')}"
            ) from None
        raise ModelClassError(
            f"MODEL_CLASS: {module_name} imports {error.name!r}, which is not installed; "
            f"put it in {root / 'packages'} or make an image that has it (docs/model-py.md)"
        ) from None
    except Exception:
        raise ModelClassError(
            f"MODEL_CLASS: {module_name} cannot be imported:\n{traceback.format_exc()}"
        ) from None
    package = importlib.import_module("label_studio_ml.model")
    base = package.LabelStudioMLBase
    # With @predict_fn the base class itself predicts.
    decorated = getattr(package, "_predict_fn", None) is not None
    fitting = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, base) and (value is not base or decorated)
    }
    if name not in fitting:
        what = "is not derived from LabelStudioMLBase" if hasattr(module, name) else "is not there"
        raise ModelClassError(
            f"MODEL_CLASS: found {spec!r}, but {name!r} {what}{nearest(name, list(fitting))}; "
            f"{module_name} has: {', '.join(fitting) or 'no such class'}"
        )
    return fitting[name]
