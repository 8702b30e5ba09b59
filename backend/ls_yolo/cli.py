"""``ls-yolo``: the backend's code for a person's hands."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ls_yolo import settings, tools, weights
from ls_yolo.config import ConfigError
from ls_yolo.settings import SettingError

EX_FAILED, EX_NOPERM, EX_CONFIG, EX_STOPPED = 1, 77, 78, 130
"""Exit codes: something failed; the token is refused; a file or setting is wrong; Ctrl-C."""


def check() -> int:
    """Reads settings, models.yaml and the weights' hashes as the backend's start does."""
    from ls_yolo import entries

    values = settings.read("backend")
    if values["MODEL_CLASS"]:
        return 0  # models.yaml is not asked
    root = Path(values["MODEL_ROOT"])
    threshold = values["MODEL_SCORE_THRESHOLD"]
    names = list(entries.read(Path(values["MODELS_CONFIG"]), root, threshold))
    default = values["DEFAULT_MODEL"]
    if default and default not in names:
        raise ConfigError(f"DEFAULT_MODEL: found {default!r}, expected one of {', '.join(names)}")
    _say(f"models.yaml: {', '.join(names)}")
    return 0


def apply(paths: list[Path]) -> int:
    """Makes Label Studio as the project files say."""
    # Imported here: --help and errors in settings need none of it.
    from ls_yolo import projects
    from ls_yolo.apply import Applier, ApplyError, Backend, TokenError, check_token, wait
    from ls_yolo.studio import Studio

    values = settings.read("setup")
    wanted = [project for path in paths for project in projects.read(path)]
    backend = Backend(values["BACKEND_URL"], values["BASIC_AUTH_USER"], values["BASIC_AUTH_PASS"])
    studio = Studio(values["LABEL_STUDIO_URL"], values["LABEL_STUDIO_API_KEY"])
    if not wanted:
        _say(f"no project in {', '.join(map(str, paths))}; a file such as demo.yaml makes one")
    failed = 0
    try:
        wait(f"{studio.url}/health", values["SETUP_TIMEOUT"], _say)
        wait(f"{backend.url}/readyz", values["SETUP_TIMEOUT"], _say)
        check_token(studio)
        # Or what was put there just now would be predicted with the models before it.
        faults = backend.reload()
    except TokenError as error:
        return _fail(str(error), EX_NOPERM)
    except ApplyError as error:
        return _fail(str(error), EX_FAILED)
    for name, fault in faults.items():
        _say(f"warning: model {name}: {fault}")
    applier = Applier(studio, backend, Path(values["LOCAL_FILES_DOCUMENT_ROOT"]), _say, faults)
    for project in wanted:
        try:
            applier.apply(project)
        except ApplyError as error:
            # The other projects do not suffer for this one.
            failed = _fail(str(error), EX_FAILED)
    return failed


def _say(text: str) -> None:
    print(text, flush=True)


def _fail(text: str, code: int) -> int:
    print(f"error: {text}", file=sys.stderr, flush=True)
    return code


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="ls-yolo", description="YOLO models in Label Studio.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "apply", help="make Label Studio as project files say; safe to run again"
    )
    command.add_argument("paths", nargs="+", type=Path, metavar="FILE_OR_FOLDER")
    weights.add_commands(commands)
    tools.add_commands(commands)
    commands.add_parser("check", help="whether models.yaml and the weights can be used")
    options = parser.parse_args(argv)
    try:
        if options.command == "weights":
            return weights.run(options)
        if options.command == "check":
            return check()
        if options.command != "apply":
            return int(options.run(options))
        return apply(options.paths)
    except KeyboardInterrupt:
        return _fail("stopped; it is safe to run the same command again", EX_STOPPED)
    except (ConfigError, SettingError) as error:
        return _fail(str(error), EX_CONFIG)
    except (weights.WeightsError, tools.ToolError) as error:
        return _fail(str(error), EX_FAILED)


if __name__ == "__main__":
    raise SystemExit(main())
