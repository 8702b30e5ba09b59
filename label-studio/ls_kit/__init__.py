"""What the ls-yolo image adds to Label Studio: settings, a start that checks, a spared backend."""
