"""The guard of outbound requests to addresses that customers typed, against server-side request forgery.

`check` settles once where a request goes: it resolves the name a single time, refuses unless every answer is
public, and pins the address. `post` connects to exactly that address (TLS still proves the name), follows no
redirect, and ends by a total deadline however slowly the other side drips. Sources: OWASP SSRF Prevention
Cheat Sheet; IANA special-purpose registries (RFC 6890) with the 6to4, Teredo and NAT64 ranges that can wrap a
private address.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from tocsin.kernel.errors import Detail, Refusal, Retry

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: (host, port) -> textual IP addresses, in the resolver's order; empty when the name does not exist.
Resolve = Callable[[str, int], Sequence[str]]
#: (address, port, seconds) -> a connected TCP socket.
Connect = Callable[[str, int, float], socket.socket]

MAX_URL_CHARACTERS: Final = 2048
MAX_BODY_BYTES: Final = 64 * 1024
PORTS: Final = frozenset({443, 8443})

_DENIED: Final = tuple(
    ipaddress.ip_network(block)
    for block in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
        *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
    )
)
_GLOBAL_V6: Final = ipaddress.ip_network("2000::/3")  # the rest is mapped, translated, local or unassigned
_HOST: Final = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII
)
_LOCAL_SUFFIXES: Final = tuple(
    f".{name}" for name in ("local", "internal", "localhost", "arpa", "test", "invalid", "onion", "home", "lan")
)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a checked request goes: `host` is the name to prove and to send, `address` the pinned IP to
    connect to.

    `path` includes the query. `tls` is False only for plain HTTP to an allowed private receiver.
    """

    host: str
    port: int
    address: str
    path: str
    tls: bool = True


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds for connecting (TLS included) and for the whole exchange."""

    connect_s: float = 2.0
    total_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Response:
    """What the other side answered. Header names are lower case; `body` is cut at MAX_BODY_BYTES."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def _deny(rule: str, fix: str) -> Refusal:
    return Refusal("ERR_EGRESS_DENIED", f"The address is not allowed: {rule}.", [Detail("url", rule, fix)])


def public(address: str) -> bool:
    """Whether a textual IP address is globally reachable unicast and cannot wrap one that is not."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if ip.version == 6 and (ip not in _GLOBAL_V6 or "%" in address):
        return False
    return ip.is_global and not any(ip in block for block in _DENIED if block.version == ip.version)


def parse_allow(text: str) -> frozenset[tuple[str, int]]:
    """EGRESS_ALLOW as pairs: `host:port` split by commas, IPv6 in brackets. Raises ValueError for others."""
    pairs: set[tuple[str, int]] = set()
    for entry in filter(None, (part.strip() for part in text.split(","))):
        host, colon, port = entry.rpartition(":")
        if not colon or not host or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
            raise ValueError(f"EGRESS_ALLOW takes host:port pairs, not {entry!r}")
        pairs.add((host.strip("[]").lower(), int(port)))
    return frozenset(pairs)


def resolve_dns(host: str, port: int) -> Sequence[str]:
    """Addresses of a name by the system's resolver; empty when there is none. Raises Retry when it failed."""
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_AGAIN, socket.EAI_FAIL):
            raise Retry("the resolver did not answer", 5.0) from error
        return ()
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def check(url: str, resolve: Resolve, allow: Collection[tuple[str, int]] = ()) -> Target:
    """Settle where a URL may be posted to. `allow` holds exact (host, port) pairs that may be private or
    plain HTTP.

    Otherwise: https, port 443 or 8443, a dotted host name that is not an IP literal in any spelling, and only
    public addresses behind it; one private answer among public ones refuses the name. Raises Refusal
    ERR_EGRESS_DENIED whose detail names the rule, and what `resolve` raises.
    """
    if not 0 < len(url) <= MAX_URL_CHARACTERS or re.search(r"[\x00-\x20\x7f-\xa0\\]", url):
        raise _deny("url_characters", f"Send at most {MAX_URL_CHARACTERS} characters without blanks or '\\'.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _deny("url_syntax", "Send an absolute URL such as https://hooks.example.com/tocsin.") from error
    if parts.scheme not in ("https", "http"):
        raise _deny("scheme", "Use https.")
    if "@" in parts.netloc:
        raise _deny("userinfo", "Take the user name and password out of the URL.")
    if parts.fragment or "#" in url:
        raise _deny("fragment", "Take the part after '#' out of the URL.")
    name = parts.hostname or ""
    tls = parts.scheme == "https"
    port = port if port is not None else (443 if tls else 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii():
        raise _deny("url_characters", "Percent-encode characters outside ASCII.")
    if (name.lower(), port) in allow:
        return Target(name.lower(), port, _first(resolve(name.lower(), port)), path, tls)
    if not tls:
        raise _deny("scheme", "Use https.")
    if port not in PORTS:
        raise _deny("port", "Use port 443 or 8443.")
    host = _host_name(name)
    addresses = resolve(host, port)
    first = _first(addresses)
    if not all(public(address) for address in addresses):
        raise _deny("address", "The name must resolve to public addresses only.")
    return Target(host, port, first, path)


def _first(addresses: Sequence[str]) -> str:
    if not addresses:
        raise _deny("unresolved", "The name has no address; check its spelling.")
    return addresses[0]


def _host_name(name: str) -> str:
    try:
        host = name.removesuffix(".").encode("idna").decode("ascii").lower()
    except UnicodeError as error:
        raise _deny("host", "Send a host name that IDNA can encode.") from error
    # A last label that begins with a letter leaves no spelling of an IPv4 or IPv6 literal (decimal, octal,
    # hex, short).
    if not _HOST.fullmatch(host):
        raise _deny("host", "Use a dotted host name, not an IP address.")
    if host.endswith(_LOCAL_SUFFIXES):
        raise _deny("host", "Use a name of the public DNS.")
    return host


def connect_tcp(address: str, port: int, seconds: float) -> socket.socket:
    """A TCP connection to an IP address; names are never looked up here."""
    ipaddress.ip_address(address)
    return socket.create_connection((address, port), timeout=seconds)


class _Reader(io.RawIOBase):
    """Reads of a socket that together may last until one fixed moment."""

    def __init__(self, deadlined: Deadlined) -> None:
        super().__init__()
        self._deadlined = deadlined

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        return self._deadlined.armed().recv_into(buffer)


class Deadlined:
    """The part of a socket that http.client uses, with one end of time for all reads and writes together.

    A plain socket timeout counts from the last byte, so a peer that drips one byte a second never meets it.
    `deadline` is in seconds of `time.monotonic`.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock, self._deadline = sock, deadline

    def armed(self) -> socket.socket:
        """The socket, set to time out at the deadline. Raises TimeoutError when that has passed."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the total time is used up")
        self._sock.settimeout(left)
        return self._sock

    def sendall(self, data: bytes) -> None:
        self.armed().sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        if mode != "rb":
            raise ValueError("only reading is buffered")
        return io.BufferedReader(_Reader(self))

    def close(self) -> None:
        """Does nothing: http.client closes once the headers are read, `_exchange` closes after the body."""


@lru_cache(maxsize=1)
def default_tls() -> ssl.SSLContext:
    """Certificates and host names are verified, TLS 1.2 or later."""
    return ssl.create_default_context()


def post(
    target: Target,
    body: bytes,
    headers: Mapping[str, str],
    timeouts: Timeouts = Timeouts(),
    connect: Connect = connect_tcp,
    tls: ssl.SSLContext | None = None,
) -> Response:
    """POST to a checked target on a fresh connection to the pinned address. Redirects are answers like any
    other.

    Raises Retry when no complete answer came: refused or slow connection, bad certificate, broken HTTP, time
    used up. Raises ValueError for header names or values that HTTP cannot carry.
    """
    return _exchange("POST", target, body, headers, timeouts, connect, tls)


def get(target: Target, timeouts: Timeouts = Timeouts()) -> Response:
    """GET a checked target; otherwise as `post`."""
    return _exchange("GET", target, None, {}, timeouts, connect_tcp, None)


def _exchange(
    method: str,
    target: Target,
    body: bytes | None,
    headers: Mapping[str, str],
    timeouts: Timeouts,
    connect: Connect,
    tls: ssl.SSLContext | None,
) -> Response:
    start = time.monotonic()
    deadline = start + timeouts.total_s
    connection = http.client.HTTPConnection(target.host, target.port)
    connection.default_port = 443 if target.tls else 80  # leaves the usual port out of the Host header
    connection.auto_open = 0  # a lost connection must not be reopened to a freshly resolved address
    try:
        sock = connect(target.address, target.port, min(timeouts.connect_s, timeouts.total_s))
        try:
            if target.tls:
                sock.settimeout(max(0.001, start + timeouts.connect_s - time.monotonic()))
                sock = (tls or default_tls()).wrap_socket(sock, server_hostname=target.host)
            connection.sock = Deadlined(sock, deadline)
            connection.request(method, target.path, body, {**headers, "Connection": "close"})
            answer = connection.getresponse()
            try:
                data = answer.read(MAX_BODY_BYTES)
            finally:
                answer.close()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Response(answer.status, named, data)
        finally:
            sock.close()
    except (OSError, http.client.HTTPException) as error:  # TimeoutError and ssl.SSLError are OSErrors
        raise Retry(f"no answer from {target.host}:{target.port}: {_reason(error)}", 5.0) from error


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "certificate not valid for the host"
    if isinstance(error, ssl.SSLError):
        return "TLS failed"
    if isinstance(error, http.client.HTTPException):
        return "not HTTP"
    return "connection failed"
