"""Which files are images."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""How the names of images end, in small letters: the files of a folder that become tasks, are
predicted by ``ls-yolo predict``, and are calibrated on. A file that is named itself may be of any
format that `decode` reads."""
PATTERN = rf".*\.(?i:{'|'.join(suffix[1:] for suffix in SUFFIXES)})$"
"""The same as a regular expression for whole names, in any case."""
