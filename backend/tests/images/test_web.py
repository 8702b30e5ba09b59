"""The web, against real servers on loopback; only the resolver of names is made up."""

from __future__ import annotations

import contextlib
import ipaddress
import shutil
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_yolo.images.limits import MediaError
from ls_yolo.images.web import MAX_REDIRECTS, Web, is_public

HOST = "images.example"


class Server:
    """Answers ``/name`` by ``pages[name]``: status, headers, body in pieces, a pause before each.

    ``asked``: method, path and headers of each request.
    """

    def __init__(self, loopback):
        self.asked = []
        self.pages = {"a.jpg": (200, {}, [b"jpeg"], 0)}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append((self.command, self.path, dict(self.headers)))
                status, headers, pieces, pause = outer.pages.get(
                    self.path.partition("?")[0][1:], (404, {}, [b""], 0)
                )
                try:
                    self.send_response(status)
                    for key, value in headers.items():
                        self.send_header(key, value)
                    self.end_headers()
                    for piece in pieces:
                        time.sleep(pause)
                        self.wfile.write(piece)
                except OSError:
                    pass  # the client had enough

        self.server = loopback(Handler)
        self.port = self.server.server_port
        self.url = f"http://{HOST}:{self.port}"


@pytest.fixture
def server(loopback):
    return Server(loopback)


def web(names=None, hosts=(HOST,), **more):
    """`Web` for which ``names`` (host to addresses) is all that the resolver knows."""
    names = {HOST: ["127.0.0.1"], **(names or {})}

    def resolve(host, port):
        if host not in names:
            raise OSError("Name or service not known")
        return names[host]

    return Web(hosts=hosts, resolve=resolve, **more)


def refused(url, limit=1000, **more):
    with pytest.raises(MediaError) as caught:
        web(**more).fetch(url, limit)
    return caught.value


def test_a_file_is_fetched_and_the_server_sees_its_own_name(server):
    assert web().fetch(f"{server.url}/a.jpg?x=a%20b", 1000) == b"jpeg"
    ((method, path, headers),) = server.asked
    assert (method, path) == ("GET", "/a.jpg?x=a%20b")
    assert headers["Host"] == f"{HOST}:{server.port}"
    assert "Authorization" not in headers


def test_a_name_with_blanks_and_other_letters_arrives_quoted(server):
    server.pages["%E9%A9%BE%20a.jpg"] = (200, {}, [b"here"], 0)
    assert web().fetch(f"{server.url}/驾 a.jpg", 1000) == b"here"


def test_user_and_password_are_not_sent_and_not_shown(server):
    url = f"http://user:hunter2@{HOST}:{server.port}/none.jpg?token=hunter2"
    assert "hunter2" not in str(refused(url))
    assert "Authorization" not in server.asked[0][2]


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255",
        "192.168.1.1", "169.254.169.254", "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1",
        "239.255.255.250", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0",
        "fc00::1", "fd12::1", "fec0::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1",
        "::127.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:a00:1::1", "2001:0:1::1",
        "2001:db8::1", "no address", "",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_known(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"]
)
def test_public_addresses_are_known(address):
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_written_as_ipv6_is_the_same_address(address):
    for written in (f"::ffff:{address}", str(ipaddress.IPv6Address(f"64:ff9b::{address}"))):
        assert is_public(written) == is_public(str(address))


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["10.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["::1"], ["169.254.169.254"]],
)
def test_a_host_with_an_address_that_is_not_public_is_not_asked(server, addresses):
    error = refused(server.url + "/a.jpg", names={HOST: addresses}, hosts=())
    assert "which is no public address" in str(error)
    assert "HTTP_IMAGE_HOSTS" in str(error)
    assert error.kind == "media_forbidden"
    assert server.asked == []


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.0.0.1", "[::1]", "0", "LOCALHOST."],
)
def test_no_spelling_of_this_machine_is_asked(server, host):
    with pytest.raises(MediaError):
        Web().fetch(f"http://{host}:{server.port}/a.jpg", 1000)
    assert server.asked == []


def test_a_private_host_that_is_allowed_is_asked(server):
    assert Web(hosts=["127.0.0.1"]).fetch(f"http://127.0.0.1:{server.port}/a.jpg", 9) == b"jpeg"
    assert web(hosts=[" Images.Example. "]).fetch(server.url + "/a.jpg", 9) == b"jpeg"


def test_the_connection_goes_to_the_address_that_was_looked_at(server):
    asked = []

    def resolve(host, port):
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    assert Web(hosts=[HOST], resolve=resolve).fetch(server.url + "/a.jpg", 9) == b"jpeg"
    assert asked == [HOST]


def test_of_several_addresses_one_that_answers_is_enough(server):
    with socket.socket() as free:  # bound and not listening: nobody answers there
        free.bind(("127.0.0.2", server.port))
        names = {HOST: ["127.0.0.2", "127.0.0.1"]}
        assert web(names).fetch(server.url + "/a.jpg", 9) == b"jpeg"


def test_a_host_that_does_not_exist_is_said_to_be_so():
    error = refused("http://none.example/a.jpg")
    assert str(error).startswith("'none.example': no such host")
    assert error.kind == "media_unreachable"


def test_it_can_be_switched_off(server):
    error = refused(server.url + "/a.jpg", allowed=False)
    assert "ALLOW_HTTP_IMAGES=true" in str(error)
    assert server.asked == []


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["/a.jpg", "a.jpg", "http://{host}/a.jpg", "//{host}/a.jpg"])
def test_a_redirect_is_followed(server, status, location):
    location = location.format(host=f"{HOST}:{server.port}")
    server.pages["old"] = (status, {"Location": location}, [b"moved"], 0)
    assert web().fetch(server.url + "/old", 1000) == b"jpeg"


def test_a_redirect_in_raw_utf8_is_quoted_as_a_browser_does(server):
    # http.server writes headers as latin-1, so these are the bytes of UTF-8.
    raw = "/caf\u00e9 \u56fe.jpg?x=%41".encode().decode("latin-1")
    quoted = "/caf%C3%A9%20%E5%9B%BE.jpg?x=%41"
    server.pages["old"] = (302, {"Location": raw}, [], 0)
    server.pages[quoted.partition("?")[0][1:]] = (200, {}, [b"jpeg"], 0)
    assert web().fetch(server.url + "/old", 1000) == b"jpeg"
    assert server.asked[-1][1] == quoted


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{port}/a.jpg",
        "http://inside.example:{port}/a.jpg",
        "file:///etc/passwd",
        "ftp://images.example/a.jpg",
        "http://[",
    ],
)
def test_a_redirect_to_where_nobody_may_go_is_not_followed(server, location):
    server.pages["old"] = (302, {"Location": location.format(port=server.port)}, [], 0)
    names = {"127.0.0.1": ["127.0.0.1"], "inside.example": ["127.0.0.1"]}
    refused(server.url + "/old", names=names)
    assert [path for _, path, _ in server.asked] == ["/old"]


def test_redirects_come_to_an_end(server):
    server.pages["round"] = (302, {"Location": "/round"}, [], 0)
    assert "redirected more than 5 times" in str(refused(server.url + "/round"))
    assert len(server.asked) == MAX_REDIRECTS + 1


# Limits


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "2000"}])
def test_a_file_beyond_the_limit_is_not_read_to_its_end(server, headers):
    server.pages["large"] = (200, headers, [b"0" * 1000] * 2, 0)
    error = refused(server.url + "/large", limit=1999)
    assert error.kind == "media_too_large"
    assert web().fetch(server.url + "/large", 2000) == b"0" * 2000


def test_a_body_without_end_ends(server):
    server.pages["endless"] = (200, {}, iter(lambda: b"0" * 65536, None), 0)
    assert refused(server.url + "/endless", limit=1 << 20).kind == "media_too_large"


def test_a_server_that_falls_silent_is_given_up(server):
    server.pages["silent"] = (200, {}, [b"0", b"0"], 1)
    begin = time.monotonic()
    error = refused(server.url + "/silent", read_seconds=0.1)
    assert error.kind == "media_too_slow"
    assert time.monotonic() - begin < 0.9


def test_a_body_that_drips_for_ever_is_given_up(server):
    server.pages["slow"] = (200, {}, iter(lambda: b"0", None), 0.02)
    begin = time.monotonic()
    error = refused(server.url + "/slow", read_seconds=5, total_seconds=0.3)
    assert error.kind == "media_too_slow"
    assert 0.2 < time.monotonic() - begin < 2


def test_headers_that_drip_for_ever_are_given_up():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)  # on a busy machine the time may be up before it is called

        def drip():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(b"HTTP/1.1 200 OK\r\n")
                    while True:
                        connection.sendall(b"X-Y: z\r\n")
                        time.sleep(0.02)

        thread = threading.Thread(target=drip)
        thread.start()
        begin = time.monotonic()
        url = f"http://{HOST}:{listener.getsockname()[1]}/a.jpg"
        assert refused(url, total_seconds=0.3).kind == "media_too_slow"
        assert time.monotonic() - begin < 2
        thread.join()


def test_a_body_that_is_cut_off_is_refused(server):
    server.pages["cut"] = (200, {"Content-Length": "10"}, [b"0"], 0)
    assert refused(server.url + "/cut").kind == "media_unreachable"


def test_a_compressed_body_is_refused(server):
    server.pages["zip"] = (200, {"Content-Encoding": "gzip"}, [b"0"], 0)
    assert "compressed" in str(refused(server.url + "/zip"))
    assert server.asked[0][2]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, "missing"), (410, "missing"), (401, "unreachable"), (403, "unreachable"),
     (204, "unreachable"), (304, "unreachable"), (500, "unreachable")],
)  # fmt: skip
def test_what_is_not_there_is_said_to_be_so(server, status, kind):
    server.pages["x"] = (status, {}, [], 0)
    assert refused(server.url + "/x").kind == f"media_{kind}"


def test_what_is_no_http_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://{HOST}:{listener.getsockname()[1]}/a.jpg"
        assert refused(url).kind == "media_unreachable"
        thread.join()


def test_nobody_listening_is_said_to_be_so():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        error = refused(f"http://{HOST}:{free.getsockname()[1]}/a.jpg")
    assert "unavailable" in str(error)


NOWHERE = web({HOST: []})


@given(st.text())
def test_no_url_is_worse_than_refused(text):
    for url in (text, f"http://{text}", f"https://none.example/{text}"):
        with pytest.raises(MediaError):
            NOWHERE.fetch(url, 1000)


# TLS


@pytest.fixture
def certificate(tmp_path):
    """A certificate for HOST that it has signed itself, and its key, in one file."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    path = tmp_path / "both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "1", "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}",
         "-keyout", str(path), "-out", str(tmp_path / "cert.pem")],
        check=True,
        capture_output=True,
    )  # fmt: skip
    path.write_text(path.read_text() + (tmp_path / "cert.pem").read_text())
    return path


def test_https_is_checked_against_the_name_and_not_the_address(server, certificate, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.server.socket = context.wrap_socket(server.server.socket, server_side=True)
    url = f"https://{HOST}:{server.port}/a.jpg"
    assert "certificate verify failed" in str(refused(url))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert web().fetch(url, 1000) == b"jpeg"
    other = {"other.example": ["127.0.0.1"]}
    error = refused(url.replace(HOST, "other.example"), names=other, hosts=["other.example"])
    assert "certificate is not valid for 'other.example'" in str(error)
