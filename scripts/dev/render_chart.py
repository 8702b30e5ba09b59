"""Keeps what the chart makes of each ci/*-values.yaml, in charts/ls-yolo/rendered, so that a change
of a template shows what it changes.

render_chart           writes the files
render_chart --check   changes nothing; exit code 1 if a file is not what the chart makes
"""

from __future__ import annotations

import argparse
import base64
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster import tools
from lib import ROOT
from lib.cli import UserError, run_main, say

CHART = ROOT / "charts" / "ls-yolo"
RENDERED = CHART / "rendered"
HELM = str(tools.TOOLS / "bin" / "helm")
# Not the cluster's that happens to be there: what is rendered must be the same everywhere.
KUBERNETES = "1.36.0"
STAND_IN = base64.b64encode(b"generated").decode()
# Values of Secrets: generated, so others each time.
_GENERATED = re.compile(
    r"(?m)^(  (?:LABEL_STUDIO_PASSWORD|LABEL_STUDIO_API_KEY|BASIC_AUTH_PASS|SECRET_KEY|"
    r"POSTGRES_PASSWORD): )\S+$"
)


def render(files: Sequence[Path], *words: str, helm: str = HELM) -> str:
    """What the chart makes of files of values, as the release ``ls-yolo`` in a namespace of that
    name. In place of what is generated stands the word ``generated``, in base64 as in any Secret.

    Raises:
        UserError: the chart refuses; with its own words.
    """
    line = [helm, "template", "ls-yolo", str(CHART), "-n", "ls-yolo",
            "--kube-version", KUBERNETES]  # fmt: skip
    for file in files:
        line += ["-f", str(file)]
    try:
        done = subprocess.run([*line, *words], capture_output=True, text=True, timeout=60)
    except OSError as error:
        raise UserError(f"cannot run {helm}: {error.strerror}. Run: make test-tools") from error
    if done.returncode:
        raise UserError(done.stderr.strip())
    return _GENERATED.sub(rf"\1{STAND_IN}", done.stdout)


def wanted() -> dict[Path, str]:
    """The files that there must be, and what is in them."""
    return {
        RENDERED / f"{path.name.removesuffix('-values.yaml')}.yaml": render([path])
        for path in sorted((CHART / "ci").glob("*-values.yaml"))
    }


def main(arguments: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only look; exit code 1 on drift")
    options = parser.parse_args(arguments)
    files = wanted()
    there = {path: path.read_text() for path in RENDERED.glob("*.yaml")}
    if there == files:
        say(f"{RENDERED.relative_to(ROOT)}: is what the chart makes")
        return 0
    different = sorted(
        path.name for path in there.keys() | files.keys() if there.get(path) != files.get(path)
    )
    if options.check:
        raise UserError(
            f"{RENDERED.relative_to(ROOT)}: {', '.join(different)} differ from what the "
            "chart makes. Run: python3 scripts/dev render_chart   and look at what it changes"
        )
    RENDERED.mkdir(exist_ok=True)
    for path in there.keys() - files.keys():
        path.unlink()
    for path, text in files.items():
        path.write_text(text)
    say(f"{RENDERED.relative_to(ROOT)}: made anew: {', '.join(different)}")
    return 0


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
