"""Compose reads ``.env`` as the scripts do."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from lib import docker, settings

pytestmark = pytest.mark.docker

HARD = ["it's $HOME", 'say "hi" \\ $$', "ends \\", "a # b", "${X:-y}", "plain", "", "'\"\\", " s "]


def test_compose_reads_env_values_as_we_do(tmp_path: Path) -> None:
    names = [f"V{number}" for number in range(len(HARD))]
    pairs = list(zip(names, HARD, strict=True))
    lines = [f"{name}={settings.quote_env(value)}\n" for name, value in pairs]
    (tmp_path / "env").write_text("".join(lines))
    references = "".join(f'      {name}: "${{{name}}}"\n' for name in names)
    (tmp_path / "compose.yaml").write_text(
        f"services:\n  a:\n    image: a\n    environment:\n{references}"
    )
    done = subprocess.run(
        [
            docker.client(), "compose", "-f", tmp_path / "compose.yaml",
            "--env-file", tmp_path / "env", "config", "--format", "json",
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    read = json.loads(done.stdout)["services"]["a"]["environment"]
    # Its output doubles the dollar signs, to be read again.
    assert {name: value.replace("$$", "$") for name, value in read.items()} == dict(pairs)
