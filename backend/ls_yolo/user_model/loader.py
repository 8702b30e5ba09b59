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


def not_installed(who: str, error: ModuleNotFoundError) -> ModelClassError:
    """The message for a package that ``who`` imports, with the command that puts it in place."""
    version = ".".join(map(str, sys.version_info[:2]))
    package = (error.name or "").partition(".")[0]
    return ModelClassError(
        f"MODEL_CLASS: {who} imports {error.name!r}, which is not installed. On the host: "
        "python3 -m pip install --target models/packages --no-deps --only-binary=:all: "
        f"--python-version {version} {package.replace('_', '-')}\n"
        "then make up. --no-deps leaves out what the package itself needs: torch and the like are "
        "in the image, and whatever is not is named next (docs/model-py.md)"
    )


def find(spec: str, root: Path, work: Path) -> type:
    """The class that ``spec``, ``module:Class``, names; its module may lie in ``work``.

    What lies beside it comes first, as where a script is started. Python packages may lie in
    ``root/packages``; of these and of ours, what is installed comes first.

    Args:
        spec: the value of MODEL_CLASS.
        root: the folder of the user's files, for messages and packages.
        work: the folder in which they are seen; see `ls_yolo.user_model.workspace`.

    Raises:
        ModelClassError: there is none, or it is not derived from ``LabelStudioMLBase``.
    """
    module_name, _, name = spec.partition(":")
    beside = (work, work.joinpath(*module_name.split(".")[:-1]))
    for folder in map(str, dict.fromkeys(beside)):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    for folder in map(str, (root / "packages", COMPAT)):
        if folder not in sys.path:
            sys.path.append(folder)
    importlib.invalidate_caches()  # the files were placed a moment ago
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name in (module_name, module_name.partition(".")[0]):
            raise ModelClassError(
                f"MODEL_CLASS: found {spec!r}, but no module is called {module_name!r}; "
                f"expected the file {root / (module_name.replace('.', '/') + '.py')}"
            ) from None
        raise not_installed(module_name, error) from None
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
