import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tocsin.delivery import egress
from tocsin.delivery.egress import MAX_BODY_BYTES, Target, Timeouts, check, parse_allow, post, public
from tocsin.kernel.errors import Refusal, Retry

PUBLIC = "93.184.216.34"


def to(*addresses: str) -> Callable[[str, int], list[str]]:
    return lambda host, port: list(addresses)


def never(host: str, port: int) -> list[str]:
    raise AssertionError(f"{host} was resolved")


def rule(
    url: str,
    resolve: Callable[[str, int], list[str]] = never,
    allow: frozenset[tuple[str, int]] = frozenset(),
) -> str:
    with pytest.raises(Refusal) as caught:
        check(url, resolve, allow)
    assert caught.value.code == "ERR_EGRESS_DENIED"
    return caught.value.details[0].rule


def test_a_public_name_is_pinned_to_its_address() -> None:
    assert check("https://Hooks.Example.com./a/b?c=d&e", to(PUBLIC, "93.184.216.35")) == Target(
        "hooks.example.com", 443, PUBLIC, "/a/b?c=d&e"
    )
    assert check("https://bücher.example:8443", to("2606:4700::1111")) == Target(
        "xn--bcher-kva.example", 8443, "2606:4700::1111", "/"
    )


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0x7f.1",
        "127.1",
        "017700000001",
        "169.254.169.254",
        "[::1]",
        "0",
        "1.1.1.1",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[fe80::1%25eth0]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "127.0.0.1.",
        "１２７.0.0.1",
        "127。0。0。1",
        "①②⑦.0.0.1",
        "localhost",
        "metadata",
        "a.internal",
        "metadata.google.internal",
        "x.localhost",
        "printer.local",
        "1.0.0.127.in-addr.arpa",
        "-a.example.com",
        "a..example.com",
        "a" * 64 + ".example.com",
    ],
)
def test_ip_literals_in_any_spelling_and_local_names_are_refused_unresolved(host: str) -> None:
    assert rule(f"https://{host}/") in {"host", "url_characters", "url_syntax"}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://hooks.example.com/", "scheme"),
        ("ftp://hooks.example.com/", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("gopher://hooks.example.com/", "scheme"),
        ("//hooks.example.com/", "scheme"),
        ("https:///x", "host"),
        ("https://u:p@hooks.example.com/", "userinfo"),
        ("https://hooks.example.com@127.0.0.1/", "userinfo"),
        ("https://hooks.example.com/#x", "fragment"),
        ("https://hooks.example.com/#", "fragment"),
        ("https://hooks.example.com:22/", "port"),
        ("https://hooks.example.com:99999/", "url_syntax"),
        ("https://hooks.example.com:x/", "url_syntax"),
        ("https://hooks.example.com\\@127.0.0.1/", "url_characters"),
        ("https://hooks.example.com/a b", "url_characters"),
        ("https://hooks.example.com/\r\nHost: x", "url_characters"),
        ("https://hooks.example.com/\x00", "url_characters"),
        ("https://hooks.example.com/ü", "url_characters"),
        ("https://hooks.example.com/" + "a" * 2048, "url_characters"),
        ("", "url_characters"),
    ],
)
def test_other_urls_are_refused_by_rule(url: str, expected: str) -> None:
    assert rule(url) == expected


PRIVATE = [
    *(
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
    ),
    *(
        "192.0.0.1",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
    ),
    *(
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:93.184.216.34",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
    ),
    *(
        "2001:db8::1",
        "2002:7f00:1::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "ff02::1",
        "3fff::1",
        "5f00::1",
        "junk",
        "",
    ),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_answers_are_refused_alone_and_among_public_ones(address: str) -> None:
    assert not public(address)
    for answers in ((address,), (PUBLIC, address), (address, PUBLIC)):
        assert rule("https://hooks.example.com/", to(*answers)) == "address"


def test_a_name_without_address_is_refused() -> None:
    assert rule("https://hooks.example.com/", to()) == "unresolved"


def test_exactly_the_allowed_pairs_may_be_private_or_plain() -> None:
    allow = parse_allow("localhost:9000, [::1]:9001,demo.test:443")
    assert check("http://localhost:9000/x", to("127.0.0.1"), allow) == Target(
        "localhost", 9000, "127.0.0.1", "/x", tls=False
    )
    assert check("http://[::1]:9001/", to("::1"), allow).address == "::1"
    assert check("https://demo.test/", to("10.0.0.1"), allow).tls
    assert rule("http://localhost:9001/", never, allow) == "scheme"
    assert rule("https://localhost:443/", never, allow) == "host"
    assert rule("http://demo.test/", never, allow) == "scheme"
    assert rule("https://a.demo.test/", never, allow) == "host"
    assert parse_allow("") == frozenset()
    for wrong in ("localhost", "localhost:", ":80", "localhost:0", "localhost:65536", "localhost:x"):
        with pytest.raises(ValueError, match="host:port"):
            parse_allow(wrong)


def test_a_name_is_resolved_once_and_rebinding_does_not_move_the_connection() -> None:
    answers = iter([[PUBLIC], ["127.0.0.1"]])
    target = check("https://hooks.example.com/", lambda host, port: next(answers))
    dialled: list[tuple[str, int]] = []

    def refuse(address: str, port: int, seconds: float) -> socket.socket:
        dialled.append((address, port))
        raise ConnectionRefusedError

    with pytest.raises(Retry, match="connection failed"):
        post(target, b"{}", {}, connect=refuse)
    assert dialled == [(PUBLIC, 443)]
    assert next(answers) == ["127.0.0.1"]


def test_connecting_never_looks_up_a_name() -> None:
    with pytest.raises(ValueError, match="localhost"):
        egress.connect_tcp("localhost", 1, 0.1)


@contextmanager
def server(answer: Callable[[socket.socket, bytes], None]) -> Iterator[tuple[Target, list[bytes]]]:
    """A receiver for one connection after another; `answer` gets the socket and the head of the request."""
    listener = socket.create_server(("127.0.0.1", 0))
    seen: list[bytes] = []

    def run() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(2)
                data = b""
                while b"\r\n\r\n" not in data or not data.endswith(b"{}"):
                    part = peer.recv(65536)
                    if not part:
                        break
                    data += part
                seen.append(data)
                try:
                    answer(peer, data)
                except OSError:
                    continue

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield Target("hooks.example.com", listener.getsockname()[1], "127.0.0.1", "/in?x=1", tls=False), seen
    finally:
        listener.close()


def test_a_post_carries_name_headers_and_body() -> None:
    with server(
        lambda peer, _: peer.sendall(b"HTTP/1.1 202 Accepted\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\nok")
    ) as (target, seen):
        answer = post(target, b"{}", {"webhook-id": "m1", "Content-Type": "application/json"})
    assert (answer.status, answer.headers["retry-after"], answer.body) == (202, "7", b"ok")
    head = seen[0].decode().split("\r\n")
    assert head[0] == "POST /in?x=1 HTTP/1.1"
    assert f"Host: hooks.example.com:{target.port}" in head
    assert "webhook-id: m1" in head
    assert "Connection: close" in head


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    canary: list[bytes] = []
    with server(lambda peer, data: canary.append(data)) as (trap, trapped):
        location = f"http://127.0.0.1:{trap.port}/".encode()
        moved = b"HTTP/1.1 307 Moved\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n"
        with server(lambda peer, _: peer.sendall(moved)) as (target, seen):
            assert post(target, b"{}", {}).status == 307
    assert len(seen) == 1
    assert trapped == []


def test_a_big_body_is_cut() -> None:
    def big(peer: socket.socket, _: bytes) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_BODY_BYTES * 3))

    with server(big) as (target, _):
        assert len(post(target, b"{}", {}).body) == MAX_BODY_BYTES


def drip(prefix: bytes, piece: bytes) -> Callable[[socket.socket, bytes], None]:
    def run(peer: socket.socket, _: bytes) -> None:
        peer.sendall(prefix)
        for _ in range(100):
            peer.sendall(piece)
            time.sleep(0.02)

    return run


@pytest.mark.parametrize(
    ("prefix", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n"),
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
)
def test_a_slow_drip_ends_at_the_total_time(prefix: bytes, piece: bytes) -> None:
    with server(drip(prefix, piece)) as (target, _), pytest.raises(Retry, match=r"timeout|not HTTP"):
        post(target, b"{}", {}, Timeouts(connect_s=0.2, total_s=0.3))


@pytest.mark.parametrize("reply", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 abc\r\n\r\n"])
def test_what_is_not_http_is_no_answer(reply: bytes) -> None:
    with (
        server(lambda peer, _: peer.sendall(reply)) as (target, _),
        pytest.raises(Retry, match=r"not HTTP|connection failed"),
    ):
        post(target, b"{}", {})


def test_a_reader_past_the_deadline_is_not_started() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        expired = egress.Deadlined(ours, time.monotonic() - 1)
        with pytest.raises(TimeoutError):
            expired.sendall(b"x")
        with pytest.raises(ValueError, match="reading"):
            expired.makefile("wb")


def test_tls_proves_the_name_and_not_the_address() -> None:
    context = ssl.create_default_context()
    names: list[str | None] = []

    def wrap(sock: socket.socket, server_hostname: str | None = None) -> ssl.SSLSocket:
        names.append(server_hostname)
        raise ssl.SSLCertVerificationError("wrong name")

    context.wrap_socket = wrap  # type: ignore[method-assign, assignment]
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(Retry, match="certificate"):
        post(Target("hooks.example.com", 443, PUBLIC, "/"), b"", {}, connect=lambda *_: ours, tls=context)
    assert names == ["hooks.example.com"]
    assert ours.fileno() == -1
    assert egress.default_tls().check_hostname
    assert egress.default_tls().verify_mode is ssl.CERT_REQUIRED


def test_header_injection_is_refused() -> None:
    with server(lambda peer, _: None) as (target, _), pytest.raises(ValueError, match="header"):
        post(target, b"{}", {"webhook-id": "a\r\nHost: evil"})
