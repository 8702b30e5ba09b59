"""Exit status 0 if Label Studio answers on port 8080 here. Imports little, to start fast."""

from __future__ import annotations

import http.client
import sys

TIMEOUT = 4.0


def main(host: str = "127.0.0.1", port: int = 8080) -> int:
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    try:
        connection.request("GET", "/health", headers={"User-Agent": "healthcheck"})
        answer = connection.getresponse()
        answer.read(1024)
    except (OSError, http.client.HTTPException) as error:
        print(f"GET http://{host}:{port}/health: {error}", file=sys.stderr)
        return 1
    finally:
        connection.close()
    if answer.status != 200:
        print(f"GET http://{host}:{port}/health: {answer.status} {answer.reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
