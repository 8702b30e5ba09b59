#!/usr/bin/env python3
"""Asks the LAN who has an address; needs root.

    probe.py PARENT ADDRESS...

PARENT is the interface at the LAN. Exit code 0: nobody has one. 1: someone, who is named.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import sys
from collections.abc import Sequence

from host import macvlan
from lib.cli import UserError, run_main, say


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="as an object: address, who has it")
    parser.add_argument("parent")
    parser.add_argument("address", nargs="+", type=ipaddress.IPv4Address)
    options = parser.parse_args(arguments)
    try:
        found = macvlan.probe(options.parent, [str(address) for address in options.address])
    except PermissionError:
        raise UserError("only root may ask. Run the same command with sudo") from None
    except OSError as error:
        raise UserError(f"{options.parent}: {error.strerror}. Is it there, and up?") from None
    if options.json:
        say(json.dumps(found))
    for address, mac in found.items() if not options.json else ():
        say(f"{address}: {mac} has it")
    return 1 if found else 0


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
