"""What to do about an error, by its kind: what `ls_yolo.metrics.kind_of` says."""

from __future__ import annotations

from collections.abc import Mapping

_CHECK = "correct models.yaml or the weights; they are taken a few seconds later"
_BUSY = "nothing, if it passes; where it is always so, raise THREADS or QUEUE_SIZE in .env"

BY_KIND: Mapping[str, str] = {
    "media_missing": "put the file back where the task says, or delete the task",
    "media_forbidden": "let user 1001 read the file: chmod -R a+rX datasets; what lies outside of "
    "DATASETS_DIR is never read",
    "media_damaged": "replace the file: it opens in no image viewer either",
    "media_too_large": "make the image smaller, or the number of images in the task",
    "media_too_slow": "put the images into datasets/: their server is too slow",
    "media_unreachable": "look whether the image's server answers from this machine; hosts of a "
    "private network belong into HTTP_IMAGE_HOSTS of .env",
    "media_url": "give the task an address that is read: a file of a storage, an upload, "
    "http(s) or a data URL",
    "StudioError": "look whether Label Studio runs (make status) and takes LABEL_STUDIO_API_KEY of "
    ".env (make up puts it back)",
    "StudioDown": "look whether Label Studio runs (make status), and at its log: make logs",
    "TokenError": "look at LABEL_STUDIO_API_KEY of .env; make up puts it into Label Studio",
    "LabelConfigError": "correct the labeling config as the message says, in the project's file or "
    "in its settings",
    "NothingToDraw": "add a control that predictions are drawn for, with labels",
    "SelectionError": "name models in the connection as the message says",
    "UnknownModel": "correct the name in the connection or the labeling config, or add the model "
    "to models.yaml",
    "NoPredictions": "connect a model of your own beside the SAM",
    "ModelUnavailable": _CHECK,
    "EngineError": _CHECK,
    "ConfigError": _CHECK,
    "PredictionError": "the entries beside this one say why its tasks failed",
    "QueueFull": _BUSY,
    "Released": "nothing: a model was just replaced, and the request is sent again",
    "ClientGone": "nothing, if someone closed the page; where it is always so, ask for fewer tasks "
    "at a time",
    "TryError": "try another file, as the message says",
    "OutOfMemoryError": "a smaller BATCH_SIZE or imgsz, or fewer models at a time",
}
"""Kind to fix."""

BY_LOGGER: Mapping[str, str] = {
    "ls_yolo.serving.registry": _CHECK,
    "ls_yolo.models": _CHECK,
    "ls_yolo.engines": "the model answers on with what it has; the backend's log says more",
    "ls_yolo.serving": "the message names what is left out, and why; correct it in the labeling "
    "config or the task",
    "ls_yolo.images": "replace the file, if what is seen of it is not enough",
    "ls_yolo.server.models": "rename the label or the class, or give the label predicted_values; "
    "nothing, where the label is for people alone",
    "ls_yolo.server.app": "set BASIC_AUTH_PASS in .env, then make up",
    "ls_yolo.user_model": "correct your model.py; the backend's log has the traceback",
}
"""Name of a logger, or of the package above it, to the fix of what it says."""

DEFAULT = "read the lines around it in the backend's log: make logs SERVICE=backend"


def of(kind: str, logger: str = "") -> str:
    """What to do about an error of ``kind``, that ``logger`` said."""
    if kind in BY_KIND:
        return BY_KIND[kind]
    while logger and not kind:
        if logger in BY_LOGGER:
            return BY_LOGGER[logger]
        logger = logger.rpartition(".")[0]
    return DEFAULT
