"""ls-yolo: YOLO models as a Label Studio ML backend."""

import os

# OpenCV reads this when it is loaded. Its own limit would let a header of a few bytes ask for
# gigabytes; this is `media.MAX_PIXELS`.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "178956970")
# What it says about a damaged image is no line of JSON, and the image's error says it anyway.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

# Requests are served side by side already. More threads for the small products of matrices that
# masks are made by only wait for each other: ten times as long where all cores are busy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

SMALL_BODY = 256 * 1024
"""The largest body of a request, in bytes, that is received before a thread takes the request: far
more than eight tasks have, and as much for each of a thousand connections does no harm."""
