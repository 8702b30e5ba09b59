"""When the certificate of an https:// address ends. The standard library alone."""

from __future__ import annotations

import socket
import ssl
import time
from urllib.parse import urlsplit

from ls_yolo.doctor.base import Finding, failed, ok, warning

SOON = 21 * 86400
"""From how many seconds before its end a certificate is warned of: renewals come earlier."""
RENEW = "renew it; where that is automatic (certbot, cert-manager), look why it did not happen"


def look(url: str, context: ssl.SSLContext | None = None, timeout: float = 5) -> list[Finding]:
    """What is to be said of the certificate at ``url``; nothing where it is not https.

    ``context``: what is trusted; unless given, what this machine trusts.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        return []
    context = context or ssl.create_default_context()
    where = (parts.hostname, parts.port or 443)
    try:
        with (
            socket.create_connection(where, timeout=timeout) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname) as secure,
        ):
            ends = ssl.cert_time_to_seconds(str((secure.getpeercert() or {})["notAfter"]))
    except ssl.SSLCertVerificationError as error:
        fix, ended = RENEW, "expired" in error.verify_message
        if not ended:
            fix = "put its authority into the trusted ones of this machine, or the right name in it"
        return [failed(f"the certificate is refused: {error.verify_message}", fix, url,
                       unsure=not ended)]  # fmt: skip
    except OSError as error:
        return [failed(f"no TLS connection: {error}", "is the address right, and the proxy up?",
                       url, unsure=True)]  # fmt: skip
    left = ends - time.time()
    day = time.strftime("%Y-%m-%d", time.gmtime(ends))
    found = f"the certificate ends on {day}, in {left / 86400:.0f} days"
    return [warning(found, RENEW, url) if left < SOON else ok(found, url)]
