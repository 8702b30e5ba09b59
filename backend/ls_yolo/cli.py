"""``ls-yolo``: the backend's code for a person's hands."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ls_yolo import settings
from ls_yolo.config import ConfigError
from ls_yolo.settings import SettingError

EX_FAILED, EX_NOPERM, EX_CONFIG, EX_STOPPED = 1, 77, 78, 130
"""Exit codes: something failed; the token is refused; a file or setting is wrong; Ctrl-C."""


def check() -> int:
    """Reads settings, models.yaml and the weights' hashes as the backend's start does."""
    from ls_yolo import registry

    values = settings.read("backend")
    root = Path(values["MODEL_ROOT"])
    entries = registry.read(Path(values["MODELS_CONFIG"]), root, values["MODEL_SCORE_THRESHOLD"])
    default = values["DEFAULT_MODEL"]
    if default and default not in entries:
        raise ConfigError(f"DEFAULT_MODEL: found {default!r}, expected one of {', '.join(entries)}")
    _say(f"models.yaml: {', '.join(entries)}")
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
    except TokenError as error:
        return _fail(str(error), EX_NOPERM)
    except ApplyError as error:
        return _fail(str(error), EX_FAILED)
    applier = Applier(studio, backend, Path(values["LOCAL_FILES_DOCUMENT_ROOT"]), _say)
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
    commands.add_parser("check", help="whether models.yaml and the weights can be used")
    options = parser.parse_args(argv)
    try:
        return check() if options.command == "check" else apply(options.paths)
    except KeyboardInterrupt:
        return _fail("stopped; it is safe to run the same command again", EX_STOPPED)
    except (ConfigError, SettingError) as error:
        return _fail(str(error), EX_CONFIG)


if __name__ == "__main__":
    raise SystemExit(main())
