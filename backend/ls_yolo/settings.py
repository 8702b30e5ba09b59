"""Every setting of ls-yolo, once: name, type, default, unit, meaning, and who reads it.

``python -m ls_yolo.settings --json`` prints the list. ``scripts/dev settings`` makes from it the
table in the docs, the environment of each service in Compose, the values of the chart and the
options of the role; ``.env`` is made from it too. A setting that is not here does not exist.

Only the standard library is used, because ``make up`` reads this list on a bare host.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["str", "int", "float", "bool", "path", "url"]
Reader = Literal["host", "build", "label-studio", "backend", "setup"]


class SettingError(ValueError):
    """A setting has a value that cannot be used; the message names it, the value and the fix."""


@dataclass(frozen=True)
class Setting:
    """One setting.

    ``readers`` says where it takes effect: ``host`` (Compose and the scripts on the host),
    ``build`` (image builds), or the service that gets it as an environment variable. ``generate``
    is how ``.env`` gets its first value: ``hex:N`` is N random hexadecimal digits; empty means
    ``default``. ``minimum`` and ``maximum`` bound a number, both included. ``fixed`` settings
    describe the inside of a container: Compose sets them, so ``.env`` does not. A text
    must match ``pattern``, a regular expression, which ``expected`` puts into words. With
    ``may_be_empty`` nothing is a value of its own, instead of the default. ``one_value``: its
    readers must have the same, so the chart has it once. ``in_chart`` is the meaning there, where
    it is another. ``in_compose`` is what a fixed one is in Compose, made of others.
    ``renamed_from`` is an older name, still read.
    """

    name: str
    type: Kind
    default: str
    meaning: str
    readers: tuple[Reader, ...]
    unit: str = ""
    secret: bool = False
    generate: str = ""
    minimum: float | None = None
    maximum: float | None = None
    fixed: bool = False
    pattern: str = ""
    expected: str = ""
    may_be_empty: bool = False
    one_value: bool = False
    in_chart: str = ""
    in_compose: str = ""
    renamed_from: str = ""

    def parse(self, text: str) -> Any:
        """The value that ``text`` stands for.

        Raises:
            SettingError: the text is not of this setting's type or out of its bounds.
        """
        text = text.strip()
        if self.type in ("str", "path", "url"):
            if self.type == "url" and text and not text.startswith(("http://", "https://")):
                raise SettingError(
                    f"{self.name}: found {text!r}, expected a URL with http:// or https://"
                )
            if self.pattern and not re.fullmatch(self.pattern, text):
                raise SettingError(f"{self.name}: found {text!r}, expected {self.expected}")
            return text
        if self.type == "bool":
            word = text.lower()
            if word in ("1", "true", "yes", "on"):
                return True
            if word in ("0", "false", "no", "off", ""):
                return False
            raise SettingError(f"{self.name}: found {text!r}, expected true or false")
        try:
            if not text.isascii():  # int() takes the digits of every script; Compose does not
                raise ValueError
            number: float = int(text) if self.type == "int" else float(text)
        except ValueError:
            expected = "a whole number" if self.type == "int" else "a number"
            raise SettingError(f"{self.name}: found {text!r}, expected {expected}") from None
        low, high = self.minimum, self.maximum
        # Written so that NaN, which compares false with everything, is refused too.
        if not (low is None or number >= low) or not (high is None or number <= high):
            raise SettingError(
                f"{self.name}: found {text!r}, expected a number from {low:g} to {high:g}"
            )
        return number


_NO_WAY_UP = r"[^/.][^/]*|\.([^/.][^/]*)?|\.\.[^/]+"
"""A part of a path that is not ``..``."""

SETTINGS: tuple[Setting, ...] = (
    # Where things are on the host.
    Setting(
        "COMPOSE_PROJECT_NAME",
        "str",
        "ls-yolo",
        "Name of the Compose project; containers, network and volumes carry it.",
        ("host",),
        pattern="[a-z0-9][a-z0-9_-]*",
        expected="small letters, digits, dashes and underscores, a letter or digit first",
    ),
    Setting(
        "BIND_ADDRESS",
        "str",
        "127.0.0.1",
        "Host address that the ports are published on. 0.0.0.0 opens them to the network.",
        ("host",),
        pattern=r"[0-9]{1,3}(\.[0-9]{1,3}){3}|\[?[0-9a-fA-F:]*:[0-9a-fA-F:.]*\]?",
        expected="an IP address",
    ),
    Setting(
        "LABEL_STUDIO_PORT",
        "int",
        "8080",
        "Host port of Label Studio.",
        ("host",),
        minimum=1,
        maximum=65535,
    ),
    Setting(
        "BACKEND_PORT",
        "int",
        "9090",
        "Host port of the backend.",
        ("host",),
        minimum=1,
        maximum=65535,
    ),
    Setting(
        "DATASETS_DIR",
        "path",
        "./datasets",
        "Images on the host. Mounted at /datasets in both services, read-only in the backend.",
        ("host",),
    ),
    Setting(
        "MODELS_DIR",
        "path",
        "./models",
        "Weights and models.yaml on the host. Mounted read-only at /models.",
        ("host",),
    ),
    Setting(
        "PROJECTS_DIR",
        "path",
        "./projects",
        "Projects as YAML on the host. Mounted read-only at /projects.",
        ("host",),
    ),
    Setting(
        "LABEL_STUDIO_MEMORY",
        "str",
        "3g",
        "Memory limit of Label Studio.",
        ("host",),
        pattern="[0-9]+[bkmgBKMG]?",
        expected="a size such as 6g or 512m",
    ),
    Setting(
        "BACKEND_MEMORY",
        "str",
        "6g",
        "Memory limit of the backend.",
        ("host",),
        pattern="[0-9]+[bkmgBKMG]?",
        expected="a size such as 6g or 512m",
    ),
    # What stands beside the two services, or goes into them: an overlay of compose/ each.
    Setting(
        "GPU",
        "bool",
        "false",
        "Whether the backend gets an NVIDIA GPU; see gpu.md.",
        ("host",),
    ),
    Setting(
        "GPU_DEVICE",
        "str",
        "0",
        "Which one, by its index or UUID (nvidia-smi -L). Inside the container it is cuda:0.",
        ("host",),
        pattern=r"[0-9]+(:[0-9]+)?|(GPU|MIG)-[0-9a-fA-F-]+",
        expected="an index such as 0, or a UUID such as GPU-1b2c...; nvidia-smi -L lists them",
    ),
    Setting(
        "SHM_SIZE",
        "str",
        "4g",
        "Shared memory of the backend with a GPU; part of BACKEND_MEMORY.",
        ("host",),
        pattern="[0-9]+[bkmgBKMG]?",
        expected="a size such as 4g or 512m",
    ),
    Setting(
        "MACVLAN",
        "bool",
        "false",
        "Whether both services have addresses of their own on the LAN; see network.md.",
        ("host",),
    ),
    Setting(
        "MACVLAN_PARENT",
        "str",
        "",
        "Interface of this host on that LAN, such as eth0, or a VLAN of it: eth0.103.",
        ("host",),
        renamed_from="PARENT",
        pattern=r"[A-Za-z0-9_.-]{0,15}",
        expected="the name of an interface, such as eth0",
    ),
    Setting(
        "MACVLAN_SUBNET",
        "str",
        "192.168.103.0/24",
        "The LAN.",
        ("host",),
        pattern=r"[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}",
        expected="a network such as 192.168.103.0/24",
    ),
    Setting(
        "MACVLAN_GATEWAY",
        "str",
        "192.168.103.1",
        "Router of the LAN. The engine wants one; the services' own way out is the bridge.",
        ("host",),
        pattern=r"[0-9]{1,3}(\.[0-9]{1,3}){3}",
        expected="an IPv4 address",
    ),
    Setting(
        "LABEL_STUDIO_ADDRESS",
        "str",
        "192.168.103.130",
        "Address of Label Studio on the LAN, outside of what DHCP gives away. Its port is 8080.",
        ("host",),
        pattern=r"[0-9]{1,3}(\.[0-9]{1,3}){3}",
        expected="an IPv4 address",
    ),
    Setting(
        "BACKEND_ADDRESS",
        "str",
        "192.168.103.129",
        "Address of the backend on the LAN, outside of what DHCP gives away. Its port is 9090.",
        ("host",),
        pattern=r"[0-9]{1,3}(\.[0-9]{1,3}){3}",
        expected="an IPv4 address",
    ),
    Setting(
        "POSTGRES",
        "bool",
        "false",
        "Whether Label Studio keeps its data in PostgreSQL instead of SQLite; see postgres.md.",
        ("host",),
    ),
    Setting(
        "POSTGRES_PASSWORD",
        "str",
        "",
        "Password of Label Studio in PostgreSQL. Counts when the database is made.",
        ("host",),
        secret=True,
        generate="hex:32",
    ),
    Setting(
        "POSTGRES_MEMORY",
        "str",
        "1g",
        "Memory limit of PostgreSQL.",
        ("host",),
        pattern="[0-9]+[bkmgBKMG]?",
        expected="a size such as 6g or 512m",
    ),
    # Who may come in.
    Setting(
        "LABEL_STUDIO_USERNAME",
        "str",
        "admin@example.com",
        "First user of Label Studio, an e-mail address. Counts when the user is created.",
        ("label-studio",),
        pattern=r"[^@\s]+@[^@\s]+",
        expected="an e-mail address",
    ),
    Setting(
        "LABEL_STUDIO_PASSWORD",
        "str",
        "",
        "Password of the first user. Counts when the user is created; "
        "make password makes a new one.",
        ("label-studio",),
        secret=True,
        generate="hex:24",
    ),
    Setting(
        "LABEL_STUDIO_API_KEY",
        "str",
        "",
        "Token of the first user: an API token, or a Personal Access Token, which is refreshed.",
        ("label-studio", "backend", "setup"),
        secret=True,
        generate="hex:40",
    ),
    Setting(
        "BASIC_AUTH_USER",
        "str",
        "label-studio",
        "User that Label Studio names to the backend.",
        ("backend", "setup"),
        may_be_empty=True,  # as the password: it turns authentication off
        one_value=True,
    ),
    Setting(
        "BASIC_AUTH_PASS",
        "str",
        "",
        "Password that Label Studio gives the backend. Empty: no authentication.",
        ("backend", "setup"),
        secret=True,
        generate="hex:32",
        may_be_empty=True,
    ),
    # Label Studio.
    Setting(
        "LABEL_STUDIO_HOST",
        "url",
        "",
        "Full address that people open, where it is not http://127.0.0.1:<port>: "
        "behind a proxy, say.",
        ("label-studio",),
        in_chart=(
            "Full address that people open; empty: that of the Ingress or HTTPRoute, if there is "
            "one."
        ),
    ),
    Setting(
        "CSRF_TRUSTED_ORIGINS",
        "str",
        "",
        "Comma-separated origins that may post forms, with scheme: https://labels.example.com.",
        ("label-studio",),
        in_chart=(
            "Comma-separated origins that may post forms, with scheme. Those of LABEL_STUDIO_HOST, "
            "of the Ingress and of the HTTPRoute always may."
        ),
    ),
    Setting(
        "LABEL_STUDIO_THREADS",
        "int",
        "8",
        "Requests that Label Studio serves at a time.",
        ("label-studio",),
        minimum=2,
        maximum=64,
    ),
    Setting(
        "SSRF_ALLOWED_HOSTS",
        "str",
        "backend",
        "Comma-separated host names whose addresses Label Studio may call "
        "although they are private.",
        ("label-studio",),
        fixed=True,
    ),
    # The backend.
    Setting(
        "LABEL_STUDIO_URL",
        "url",
        "http://label-studio:8080",
        "Where the backend and setup reach Label Studio.",
        ("backend", "setup"),
        fixed=True,
    ),
    Setting(
        "LABEL_STUDIO_PUBLIC_URLS",
        "str",
        "",
        "Comma-separated addresses under which people open Label Studio: of an image there the "
        "path is asked from LABEL_STUDIO_URL.",
        ("backend",),
        fixed=True,
        in_compose=(
            "${LABEL_STUDIO_HOST:-},http://localhost:${LABEL_STUDIO_PORT:-8080},"
            "http://127.0.0.1:${LABEL_STUDIO_PORT:-8080},"
            "http://${BIND_ADDRESS:-127.0.0.1}:${LABEL_STUDIO_PORT:-8080}"
        ),
    ),
    Setting(
        "BACKEND_URL",
        "url",
        "http://backend:9090",
        "Where Label Studio reaches the backend.",
        ("setup",),
        fixed=True,
    ),
    Setting(
        "MODELS_CONFIG",
        "path",
        "/models/models.yaml",
        "The list of models.",
        ("backend",),
        fixed=True,
    ),
    Setting(
        "MODEL_ROOT",
        "path",
        "/models",
        "Folder of the weights; none is read from outside it.",
        ("backend",),
        fixed=True,
    ),
    Setting(
        "MODEL_DIR",
        "path",
        "/data/models",
        "Folder for what the backend itself writes: caches, and what prelabel could not predict.",
        ("backend", "setup"),
        fixed=True,
    ),
    Setting(
        "MODEL_CLASS",
        "str",
        "",
        "A class of your own that answers instead of models.yaml, such as model:NewModel for the "
        "class NewModel in models/model.py; see model-py.md. Empty: models.yaml.",
        ("backend",),
        pattern=r"([A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*)?",
        expected="module:Class, such as model:NewModel",
        in_chart=(
            "A class of your own that answers instead of models.config, such as model:NewModel. "
            "Empty: models.config."
        ),
    ),
    Setting(
        "DEFAULT_MODEL",
        "str",
        "",
        "Model that answers where neither control, URL nor extra_params name one. "
        "Empty: the first of models.yaml.",
        ("backend",),
        in_chart=(
            "Model that answers where neither control, URL nor extra_params name one. Empty: the "
            "first of models.config."
        ),
    ),
    Setting(
        "MODEL_SCORE_THRESHOLD",
        "float",
        "0.5",
        "Lowest score of a box where neither the control nor models.yaml gives one.",
        ("backend",),
        unit="score",
        minimum=0,
        maximum=1,
        in_chart=("Lowest score of a box where neither the control nor models.config gives one."),
    ),
    Setting(
        "ALLOW_CUSTOM_MODEL_PATH",
        "bool",
        "false",
        "Whether model_path of a control may name a weights file in MODEL_ROOT "
        "that models.yaml does not.",
        ("backend",),
        in_chart=(
            "Whether model_path of a control may name a weights file in MODEL_ROOT that "
            "models.config does not."
        ),
    ),
    Setting(
        "DEVICE",
        "str",
        "auto",
        "Device that runs the models: auto, cpu, cuda:0.",
        ("backend",),
        pattern="auto|cpu|cuda(:[0-9]+)?",
        expected="auto, cpu or cuda:0",
    ),
    Setting(
        "ALLOW_UNSAFE_WEIGHTS",
        "bool",
        "false",
        "Whether weights may be loaded that are more than tensors and YOLO's own classes; loading "
        "them runs whatever code they name.",
        ("backend",),
    ),
    Setting(
        "MODEL_LOADING",
        "str",
        "start",
        "When models are loaded: start, or first_use.",
        ("backend",),
        pattern="start|first_use",
        expected="start or first_use",
    ),
    Setting(
        "MODEL_POLL_SECONDS",
        "float",
        "2",
        "Time between two looks at models.yaml and weights, whose changes are taken without a "
        "restart. 0: looks only when make up asks.",
        ("backend",),
        unit="seconds",
        minimum=0,
        maximum=3600,
        in_chart=(
            "Time between two looks at models.config and weights, whose changes are taken without a"
            " restart."
        ),
    ),
    Setting(
        "MODEL_IDLE_SECONDS",
        "float",
        "0",
        "A model that was not used for so long is unloaded until it is. 0: never.",
        ("backend",),
        unit="seconds",
        minimum=0,
        maximum=604800,
    ),
    Setting(
        "MODEL_MEMORY_MB",
        "int",
        "0",
        "Memory that the loaded models may take together, estimated; the least recently used is "
        "unloaded for another. 0: no limit.",
        ("backend",),
        unit="megabytes",
        minimum=0,
        maximum=524288,
    ),
    Setting(
        "ENGINE",
        "str",
        "auto",
        "What runs the models: torch, openvino (on the CPU, 2 to 4 times as fast as torch), "
        "or auto: torch on an NVIDIA GPU, else openvino.",
        ("backend",),
        pattern="auto|torch|openvino",
        expected="auto, torch or openvino",
    ),
    Setting(
        "PRECISION",
        "str",
        "auto",
        "In what numbers models compute: auto, what the CPU or GPU does fastest (bfloat16, "
        "half precision); f32, in full, for scores to the third digit; int8 where "
        "that costs at most a point of mAP, on the CPU only.",
        ("backend",),
        pattern="auto|f32|int8",
        expected="auto, f32 or int8",
    ),
    Setting(
        "CALIBRATION_IMAGES",
        "str",
        "",
        "Folder of DATASETS_DIR whose images PRECISION=int8 is made and measured with; 100 at "
        "least. Empty: all of them.",
        ("backend",),
        # Without a look-ahead: Helm's schemas know none.
        pattern=rf"(({_NO_WAY_UP})(/({_NO_WAY_UP})?)*)?",
        expected="a folder inside DATASETS_DIR, without .. or a leading slash",
    ),
    Setting(
        "LOCAL_FILES_DOCUMENT_ROOT",
        "path",
        "/datasets",
        "Folder of the images in both containers; no file is read from outside it.",
        ("label-studio", "backend", "setup"),
        fixed=True,
    ),
    Setting(
        "ALLOW_HTTP_IMAGES",
        "bool",
        "true",
        "Whether the backend reads images at http:// and https:// addresses. Addresses of private "
        "networks are never read, except those of HTTP_IMAGE_HOSTS.",
        ("backend",),
    ),
    Setting(
        "HTTP_IMAGE_HOSTS",
        "str",
        "",
        "Comma-separated host names or addresses that images may be read from although they are "
        "private: a camera, a MinIO.",
        ("backend",),
    ),
    Setting(
        "DECODE_REDUCED",
        "bool",
        "false",
        "Whether large JPEG images are decoded at a half, a quarter or an eighth of their "
        "size where the model needs no more: half the time. Boxes of clean images move by "
        "less than 0.5 % of the image, those of noisy ones by up to 2 %.",
        ("backend",),
    ),
    Setting(
        "PORT",
        "int",
        "9090",
        "Port on which the backend listens in its container.",
        ("backend",),
        minimum=1,
        maximum=65535,
        fixed=True,
    ),
    Setting(
        "WORKERS",
        "int",
        "1",
        "Processes of the backend. One: every further one would hold its own copy of the weights.",
        ("backend",),
        minimum=1,
        maximum=1,
        fixed=True,
    ),
    Setting(
        "THREADS",
        "int",
        "16",
        "Requests that the backend serves at a time. All but two may be for predictions; more are "
        "answered with 429 at once.",
        ("backend",),
        minimum=3,
        maximum=256,
    ),
    Setting(
        "READ_TIMEOUT",
        "float",
        "30",
        "Time for a request to arrive in, and for its answer to be taken.",
        ("backend",),
        unit="seconds",
        minimum=1,
        maximum=3600,
    ),
    Setting(
        "BATCH_SIZE",
        "int",
        "8",
        "Most images that go through a model at a time.",
        ("backend",),
        minimum=1,
        maximum=256,
    ),
    Setting(
        "BATCH_WINDOW_MS",
        "float",
        "2",
        "Longest time that a batch waits for images that are being decoded.",
        ("backend",),
        unit="milliseconds",
        minimum=0,
        maximum=1000,
    ),
    Setting(
        "QUEUE_SIZE",
        "int",
        "256",
        "Most images that wait for a model; requests that bring more are answered with 429.",
        ("backend",),
        minimum=1,
        maximum=100000,
    ),
    Setting(
        "DECODE_THREADS",
        "int",
        "4",
        "Images that are decoded at a time, beside the models.",
        ("backend",),
        minimum=1,
        maximum=64,
    ),
    Setting(
        "DEBUG_PLOT",
        "str",
        "",
        "Folder in the backend's container, such as /data/plots, where a picture of each "
        "prediction is saved with its boxes; the newest 500 stay. Empty: none.",
        ("backend",),
        pattern=r"(/.*)?",
        expected="a path that begins with a slash",
    ),
    Setting(
        "LOG_LEVEL",
        "str",
        "INFO",
        "How much is logged: DEBUG, INFO, WARNING or ERROR.",
        ("backend", "setup"),
        pattern="(?i:debug|info|warning|error)",
        expected="DEBUG, INFO, WARNING or ERROR",
    ),
    Setting(
        "LOG_FORMAT",
        "str",
        "json",
        "How the backend logs: json, an object a line, or text.",
        ("backend",),
        pattern="json|text",
        expected="json or text",
    ),
    Setting(
        "PRELABEL_SCORE",
        "str",
        "least_confidence-mean",
        "How the score of a prediction is made, of which Label Studio's uncertainty sampling shows "
        "the lowest first: least_confidence, margin or entropy of each region, then -mean, -max or "
        "-sum of them; see prelabel.md.",
        ("backend", "setup"),
        pattern="(least_confidence|margin|entropy)-(mean|max|sum)",
        expected="least_confidence, margin or entropy, a dash, and mean, max or sum",
        one_value=True,
    ),
    Setting(
        "SETUP_TIMEOUT",
        "int",
        "300",
        "How long setup waits for the services.",
        ("setup",),
        unit="seconds",
        minimum=1,
        maximum=86400,
    ),
    Setting(
        "UPDATE_CHECK",
        "bool",
        "false",
        "Whether `make up` asks where this clone comes from, its git remote, for a newer release.",
        ("host",),
    ),
    # Image builds. Nothing of these stays in an image.
    Setting(
        "IMAGES",
        "str",
        "build",
        "Where the images come from: build; or present: they were brought, nothing is built, and "
        "no index is asked; see bundle.md.",
        ("build",),
        pattern="build|present",
        expected="build or present",
    ),
    Setting(
        "CA_BUNDLE",
        "path",
        "",
        "Certificates that builds trust. Empty: the host's /etc/ssl/certs/ca-certificates.crt.",
        ("build",),
    ),
    Setting(
        "PIP_INDEX_URL",
        "url",
        "",
        "Python package index, a mirror for example. Empty: PyPI.",
        ("build",),
    ),
    Setting(
        "APT_MIRROR", "url", "", "Debian mirror. Empty: http://deb.debian.org/debian.", ("build",)
    ),
    Setting(
        "TORCH_INDEX",
        "url",
        "",
        "Index that torch and torchvision come from, with the pinned version. Empty: the lock "
        "file with its hashes. https://download.pytorch.org/whl/cpu is a fifth of the size, "
        "without CUDA.",
        ("build",),
    ),
)

BY_NAME: dict[str, Setting] = {setting.name: setting for setting in SETTINGS}


def read(reader: Reader, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The values of the settings that ``reader`` has, from the environment or by default.

    Raises:
        SettingError: a value cannot be used.
    """
    environ = os.environ if environ is None else environ
    values = {}
    for setting in SETTINGS:
        if reader in setting.readers:
            text = environ.get(setting.name, "").strip()
            if setting.may_be_empty:  # the default is for .env
                values[setting.name] = text
            else:
                values[setting.name] = setting.parse(text or setting.default)
    return values


def faults(environ: Mapping[str, str] | None = None) -> list[str]:
    """A line for each setting whose value in the environment cannot be used."""
    environ = os.environ if environ is None else environ
    found = []
    for setting in SETTINGS:
        try:
            setting.parse(environ.get(setting.name, "").strip() or setting.default)
        except SettingError as error:
            found.append(str(error))
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ls_yolo.settings", description=__doc__)
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--json", action="store_true", help="every setting as JSON")
    form.add_argument("--markdown", action="store_true", help="the table of the docs")
    form.add_argument(
        "--check", action="store_true", help="look at the values in the environment; 78 if wrong"
    )
    options = parser.parse_args(argv)
    if options.check:
        print("\n".join(found := faults()), end="\n" if found else "")
        return os.EX_CONFIG if found else 0
    if options.json:
        print(json.dumps([asdict(setting) for setting in SETTINGS], indent=2))
        return 0
    print(markdown())
    return 0


def markdown() -> str:
    """The settings as a Markdown table."""
    rows = ["| setting | default | read by | meaning |", "|---|---|---|---|"]
    for setting in SETTINGS:
        default = (
            "generated"
            if setting.generate
            else f"`{setting.default}`"
            if setting.default
            else "empty"
        )
        unit = f" In {setting.unit}." if setting.unit and setting.unit != "score" else ""
        rows.append(
            f"| `{setting.name}` | {default} | {', '.join(setting.readers)} "
            f"| {setting.meaning}{unit} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    raise SystemExit(main())
