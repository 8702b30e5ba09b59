"""Django settings: Label Studio's own, and what cannot be said in its environment variables.

What is plain environment is set in the Dockerfile. Label Studio reads most variables as
``LABEL_STUDIO_X``, ``HEARTEX_X`` or ``X``; that holds here too.
"""
# Upstream's settings are a star import by nature: all of its names are settings.
# ruff: noqa: E402, F403, F405
# mypy: disable-error-code="import-not-found,import-untyped,name-defined,used-before-def,has-type"

from __future__ import annotations

import logging
import os
import warnings
from typing import Any
from urllib.parse import urlsplit

# Upstream reads these by int(), then by a parser that knows words: "true" would end in a traceback.
for _name in ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "CSRF_COOKIE_HTTPONLY",
              "INACTIVITY_SESSION_TIMEOUT_ENABLED"):  # fmt: skip
    for _prefix in ("LABEL_STUDIO_", "HEARTEX_", ""):
        _word = os.environ.get(_prefix + _name)
        if _word is not None:
            os.environ[_prefix + _name] = str(
                int(_word.strip().lower() in ("1", "true", "yes", "on"))
            )

# Before its own logging is set up, upstream would log everything from DEBUG on.
logging.basicConfig(level=logging.WARNING)
warnings.filterwarnings("ignore", message="Accessing the database during app initialization")

# While they load, upstream's settings are asked for by modules that they import. The half that is
# done is found under the name of the settings module, so for that while it must be upstream's.
os.environ["DJANGO_SETTINGS_MODULE"] = "core.settings.label_studio"
try:
    from core.settings.label_studio import *
    from core.utils.params import get_env, has_env
finally:
    os.environ["DJANGO_SETTINGS_MODULE"] = __name__

from ls_kit.ssrf import DEFAULT_BANNED, BannedSubnets, parse_hosts, parse_networks

# --- SSRF: the list of upstream, complete but for the backend (see ssrf.py) -----------------------
# Upstream's own list is switched off because it cannot be cut; ours takes its place. Who sets
# USE_DEFAULT_BANNED_SUBNETS=false has asked for no list at all, and gets that, as upstream.
USER_ADDITIONAL_BANNED_SUBNETS: Any = BannedSubnets(
    parse_hosts(get_env("SSRF_ALLOWED_HOSTS", "backend")),
    default=DEFAULT_BANNED if USE_DEFAULT_BANNED_SUBNETS else (),
    additional=parse_networks(USER_ADDITIONAL_BANNED_SUBNETS),
)
USE_DEFAULT_BANNED_SUBNETS = False

# --- Nobody is called from here -------------------------------------------------------------------
ROOT_URLCONF = "ls_kit.urls"

# --- SQLite ---------------------------------------------------------------------------------------
# WAL: readers do not wait for a writer. IMMEDIATE: a transaction takes its turn to write when it
# begins; one that reads first and writes later fails at once, timeout or not, if another came
# between.
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 30,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL",
    }

# --- Forms and cookies behind a proxy -------------------------------------------------------------
# Whoever names the address that people open (LABEL_STUDIO_HOST) need not name it a second time.
_host = urlsplit(HOSTNAME)
CSRF_TRUSTED_ORIGINS = [
    origin.strip().rstrip("/")
    for origin in (get_env("CSRF_TRUSTED_ORIGINS") or "").split(",")
    if origin.strip()
]
if _host.netloc and f"{_host.scheme}://{_host.netloc}" not in CSRF_TRUSTED_ORIGINS:
    CSRF_TRUSTED_ORIGINS.append(f"{_host.scheme}://{_host.netloc}")
if _host.scheme == "https" and not has_env("SESSION_COOKIE_SECURE"):
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True

# --- Logs -----------------------------------------------------------------------------------------
# Django's messages reach the root logger's handler; upstream gives them a second one of their own.
LOGGING["loggers"]["django"]["handlers"] = []

# The healthcheck asks by this name, whatever names the operator allows for people.
if "*" not in ALLOWED_HOSTS:
    ALLOWED_HOSTS = [*(host.strip() for host in ALLOWED_HOSTS), "127.0.0.1"]
