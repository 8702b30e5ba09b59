"""Brings the images of the chart's tests to the nodes of KUBECONFIG's cluster, those that are not
there. They are gigabytes, so that this may be done while something else runs."""

from __future__ import annotations

import os

from cluster import kubernetes
from lib import versions
from lib.cli import run_main, say


def bring() -> dict[str, str]:
    """Brings them; returns the name that each has on the nodes. See `kubernetes.bring_images`."""
    return kubernetes.bring_images([*versions.images().values(), versions.POSTGRES_IMAGE])


def main() -> int:
    if not os.environ.get("KUBECONFIG"):
        say(f"no cluster is named, so no images are brought. {kubernetes.NO_CLUSTER}")
        return 0
    kubernetes.context()
    bring()
    return 0


if __name__ == "__main__":
    run_main(main)
