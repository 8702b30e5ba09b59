"""ls-yolo: YOLO models as a Label Studio ML backend."""
