"""``ls-yolo``: the backend's code for a person's hands."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ls_yolo.cli import weights
from ls_yolo.cli.apply import apply
from ls_yolo.cli.check import check
from ls_yolo.cli.common import EX_CONFIG, EX_FAILED, EX_STOPPED, ToolError, fail
from ls_yolo.cli.labels import show_labels
from ls_yolo.cli.models import models
from ls_yolo.cli.predict import _score, predict
from ls_yolo.config import ConfigError
from ls_yolo.models.weights import WeightsError
from ls_yolo.settings import SettingError


def add_commands(commands: Any) -> None:
    """Adds the parsers of the commands to the subparsers of ``ls-yolo``."""
    command = commands.add_parser(
        "predict", help="the boxes of images, as JSON, a line each; as pictures too"
    )
    command.add_argument("paths", nargs="+", type=Path, metavar="IMAGE_OR_FOLDER")
    command.add_argument("--model", default="", help="a name of models.yaml; else the default")
    command.add_argument(
        "--conf", type=_score, metavar="0..1", help="lowest score; else that of the model"
    )
    command.add_argument("--save", type=Path, metavar="DIR", help="draw the boxes, and save there")
    command.set_defaults(run=predict)

    command = commands.add_parser(
        "models", help="the models: versions, classes, what runs them, memory"
    )
    command.add_argument("--json", action="store_true", help="everything, as JSON")
    command.set_defaults(run=models)

    command = commands.add_parser(
        "labels", help="how the labels of a project map to the classes of its models"
    )
    command.add_argument(
        "--project",
        required=True,
        metavar="FILE_OR_ID",
        help="a file or folder of projects, - for standard input, or a number in Label Studio",
    )
    command.add_argument("--json", action="store_true", help="everything, as JSON")
    command.set_defaults(run=show_labels)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="ls-yolo", description="YOLO models in Label Studio.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "apply", help="make Label Studio as project files say; safe to run again"
    )
    command.add_argument("paths", nargs="+", type=Path, metavar="FILE_OR_FOLDER")
    weights.add_commands(commands)
    add_commands(commands)
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
        return fail("stopped; it is safe to run the same command again", EX_STOPPED)
    except (ConfigError, SettingError) as error:
        return fail(str(error), EX_CONFIG)
    except (WeightsError, ToolError) as error:
        return fail(str(error), EX_FAILED)


if __name__ == "__main__":
    raise SystemExit(main())
