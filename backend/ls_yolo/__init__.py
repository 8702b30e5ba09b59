"""ls-yolo: YOLO models as a Label Studio ML backend."""

import os

# OpenCV reads this when it is loaded. Its own limit would let a header of a few bytes ask for
# gigabytes; this is `media.MAX_PIXELS`.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "178956970")
