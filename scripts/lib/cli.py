"""What a script says and how it ends: messages, errors for people, exit codes."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from typing import NoReturn

TO_DO = 3
"""Exit code of preflight and of install_engine --dry-run: nothing wrong, something to do."""
EX_NOUSER = 67
"""Exit code inside Label Studio's container: there is no such user."""
EX_NOPERM = 77
"""Exit code of setup: Label Studio does not take its token."""
EX_CONFIG = 78
"""Exit code of the backend's own looks: settings, models.yaml or weights cannot be used."""
KILLED = 137
"""Exit code of a container that was killed."""


class UserError(Exception):
    """Something that a person must put right; the text says what was found and what to do."""


def say(text: str = "") -> None:
    """Prints at once, so that our lines and those of the commands we run stay in order."""
    print(text, flush=True)


def run_main(main: Callable[[], int]) -> NoReturn:
    """Runs a script's ``main``; a failure is a message and exit code 1, never a traceback."""
    try:
        code = main()
    except UserError as failure:
        say_error(str(failure))
        code = 1
    except PermissionError as error:
        say_error(
            f"{error.filename}: permission denied. If an earlier run with sudo made it: "
            f'sudo chown -R "$USER" {shlex.quote(str(error.filename))}'
        )
        code = 1
    except BrokenPipeError:  # whoever read our output has gone: make up | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except KeyboardInterrupt:
        say_error("stopped; it is safe to run the same command again")
        code = 130
    raise SystemExit(code)


def say_error(text: str) -> None:
    sys.stdout.flush()
    print(f"error: {text}", file=sys.stderr, flush=True)
