"""Certificates that end soon, on real TLS servers."""

from __future__ import annotations

import datetime
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ls_yolo.doctor import certificates
from ls_yolo.doctor.base import Level


@pytest.fixture
def secure(tmp_path):
    """Starts an https server whose certificate ends after ``days``; returns its URL and what
    trusts it."""
    servers = []

    def secure(days):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=100))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False
            )
            .sign(key, hashes.SHA256())
        )  # fmt: skip
        file = tmp_path / f"{days}.pem"
        pem = serialization.Encoding.PEM
        file.write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            + made.public_bytes(pem)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        trusting = ssl.create_default_context(cadata=made.public_bytes(pem).decode())
        return f"https://127.0.0.1:{server.server_port}/prefix", trusting

    yield secure
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("days", "level", "says"),
    [
        (90, Level.OK, "in 90 days"),
        (5, Level.WARNING, "in 5 days"),
        (-1, Level.FAILED, "certificate has expired"),
    ],
)
def test_a_certificate_is_red_when_it_has_ended_and_warned_of_before(secure, days, level, says):
    url, trusting = secure(days)
    (found,) = certificates.look(url, trusting)
    assert found.level == level
    assert says in found.found
    assert bool(found.fix) == (level != Level.OK)


def test_an_authority_that_nobody_trusts_is_named(secure):
    url, _ = secure(90)
    (found,) = certificates.look(url)
    assert found.level == Level.FAILED
    assert "self-signed" in found.found and "authority" in found.fix


def test_where_nobody_answers_and_without_https():
    assert certificates.look("http://127.0.0.1:1") == []
    (found,) = certificates.look("https://127.0.0.1:1")
    assert (found.level, found.found[:18]) == (Level.FAILED, "no TLS connection:")
