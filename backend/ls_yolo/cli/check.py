"""``ls-yolo check``: whether models.yaml and the weights can be used."""

from __future__ import annotations

from ls_yolo import settings
from ls_yolo.cli.common import app, say


@app.command("check", help="whether models.yaml and the weights can be used")
def check() -> int:
    """Reads settings, models.yaml and the weights' hashes as the backend's start does."""
    from ls_yolo.config import ConfigError
    from ls_yolo.models import config, weights

    values = settings.read("backend")
    if values["MODEL_CLASS"]:
        return 0  # models.yaml is not asked
    entries = config.Source.read(values).entries()
    faults = []
    for entry in entries.values():
        try:
            weights.inspect_for(entry.weights, bool(entry.architecture), entry.sha256)
        except weights.WeightsError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))
    names = list(entries)
    default = values["DEFAULT_MODEL"]
    if default and default not in names:
        raise ConfigError(f"DEFAULT_MODEL: found {default!r}, expected one of {', '.join(names)}")
    say(f"models.yaml: {', '.join(names)}")
    return 0
