"""Ed25519 (RFC 8032 §5.1) and ECDSA P-256 with SHA-256 (FIPS 186-5), with the standard library only.

For a few signatures per minute: a verification takes some milliseconds. Verification handles public values
only. `Ed25519Key.sign` is not constant in time; it is for development and tests, and where a key service has
no Ed25519. Production signs in KMS.
"""

from __future__ import annotations

import hashlib
from typing import Final

Point = tuple[int, int, int, int]
Jacobian = tuple[int, int, int]

# ------------------------------------------------------------------------------------------------------ Ed25519
_P: Final = 2**255 - 19
_L: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, -1, _P) % _P
_ROOT: Final = pow(2, (_P - 1) // 4, _P)
_ZERO: Final[Point] = (0, 1, 1, 0)
#: SubjectPublicKeyInfo of Ed25519 (RFC 8410) up to the 32 bytes of the key.
ED25519_SPKI: Final = bytes.fromhex("302a300506032b6570032100")
#: SubjectPublicKeyInfo of P-256 (RFC 5480), uncompressed, up to the 64 bytes of the point.
P256_SPKI: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")


def _sum(a: Point, b: Point) -> Point:
    x1, y1, z1, t1 = a
    x2, y2, z2, t2 = b
    e, f = (y1 - x1) * (y2 - x2) % _P, (y1 + x1) * (y2 + x2) % _P
    g, h = 2 * t1 * t2 * _D % _P, 2 * z1 * z2 % _P
    i, j, k, m = f - e, h - g, h + g, f + e
    return i * j % _P, k * m % _P, j * k % _P, i * m % _P


def _times(scalar: int, point: Point) -> Point:
    out = _ZERO
    for bit in bin(scalar)[2:]:
        out = _sum(out, out)
        if bit == "1":
            out = _sum(out, point)
    return out


def _encoded(point: Point) -> bytes:
    inverse = pow(point[2], -1, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _decoded(data: bytes) -> Point | None:
    """RFC 8032 §5.1.3; None for encodings that are not canonical or not on the curve."""
    value = int.from_bytes(data, "little")
    y, sign = value & ((1 << 255) - 1), value >> 255
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if x * x % _P != square:
        x = x * _ROOT % _P
    if x * x % _P != square or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


_BASE: Final = _decoded((4 * pow(5, -1, _P) % _P).to_bytes(32, "little")) or _ZERO


def _challenge(*parts: bytes) -> int:
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % _L


def verify_ed25519(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) of `message` is by `public` (32 bytes). Strict: s below the group order,
    and R compared as bytes, so that no second encoding of a signature is accepted."""
    if len(public) != 32 or len(signature) != 64:
        return False
    point, s = _decoded(public), int.from_bytes(signature[32:], "little")
    if point is None or s >= _L:
        return False
    k = _challenge(signature[:32], public, message)
    negative = (_P - point[0], point[1], 1, _P - point[3])
    return _encoded(_sum(_times(s, _BASE), _times(k, negative))) == signature[:32]


class Ed25519Key:
    """A private key held in memory, from a seed of 32 bytes; implements notes.Signer."""

    algorithm: Final = "ed25519"

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise ValueError("an Ed25519 seed has 32 bytes")
        expanded = hashlib.sha512(seed).digest()
        self._scalar = int.from_bytes(expanded[:32], "little") & ((1 << 254) - 8) | 1 << 254
        self._prefix = expanded[32:]
        self._public = _encoded(_times(self._scalar, _BASE))

    def public(self) -> bytes:
        return self._public

    def sign(self, message: bytes) -> bytes:
        nonce = _challenge(self._prefix, message)
        commitment = _encoded(_times(nonce, _BASE))
        s = (nonce + _challenge(commitment, self._public, message) * self._scalar) % _L
        return commitment + s.to_bytes(32, "little")


# ------------------------------------------------------------------------------------------------------- P-256
_Q: Final = 2**256 - 2**224 + 2**192 + 2**96 - 1
_N: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_B: Final = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_G: Final = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
    1,
)


def _double(a: Jacobian) -> Jacobian:
    x, y, z = a
    if not z:
        return a
    delta, gamma = z * z % _Q, y * y % _Q
    beta, alpha = x * gamma % _Q, 3 * (x - delta) * (x + delta) % _Q
    out = (alpha * alpha - 8 * beta) % _Q
    return out, (alpha * (4 * beta - out) - 8 * gamma * gamma) % _Q, 2 * y * z % _Q


def _add(a: Jacobian, b: Jacobian) -> Jacobian:
    if not a[2]:
        return b
    if not b[2]:
        return a
    z1, z2 = a[2] * a[2] % _Q, b[2] * b[2] % _Q
    u1, u2 = a[0] * z2 % _Q, b[0] * z1 % _Q
    s1, s2 = a[1] * z2 * b[2] % _Q, b[1] * z1 * a[2] % _Q
    h, r = (u2 - u1) % _Q, (s2 - s1) % _Q
    if not h:
        return (0, 1, 0) if r else _double(a)
    square = h * h % _Q
    cube, v = h * square % _Q, u1 * square % _Q
    x = (r * r - cube - 2 * v) % _Q
    return x, (r * (v - x) - s1 * cube) % _Q, h * a[2] * b[2] % _Q


def _multiple(scalar: int, point: Jacobian) -> Jacobian:
    out: Jacobian = (0, 1, 0)
    for bit in bin(scalar)[2:]:
        out = _double(out)
        if bit == "1":
            out = _add(out, point)
    return out


def _der_pair(signature: bytes) -> tuple[int, int] | None:
    """r and s of an ECDSA-Sig-Value in DER; None unless it is the one DER form of its values."""
    if len(signature) < 8 or signature[2] != 2:
        return None
    middle = 4 + signature[3]
    if middle + 2 > len(signature):
        return None
    r, s = int.from_bytes(signature[4:middle], "big"), int.from_bytes(signature[middle + 2 :], "big")
    parts = b"".join(bytes([2, len(raw)]) + raw for raw in (_der_integer(r), _der_integer(s)))
    return (r, s) if signature == bytes([0x30, len(parts)]) + parts else None


def _der_integer(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big")[:127]


def verify_p256(spki: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (DER) of `message` under SHA-256 is by the key in `spki` (DER, uncompressed)."""
    if len(spki) != len(P256_SPKI) + 64 or not spki.startswith(P256_SPKI) or len(signature) > 72:
        return False
    x, y = int.from_bytes(spki[-64:-32], "big"), int.from_bytes(spki[-32:], "big")
    if x >= _Q or y >= _Q or (y * y - (x * x * x - 3 * x + _B)) % _Q:
        return False
    pair = _der_pair(signature)
    if pair is None or not (0 < pair[0] < _N and 0 < pair[1] < _N):
        return False
    r, w = pair[0], pow(pair[1], -1, _N)
    e = int.from_bytes(hashlib.sha256(message).digest(), "big")
    point = _add(_multiple(e * w % _N, _G), _multiple(r * w % _N, (x, y, 1)))
    if not point[2]:
        return False
    return point[0] * pow(point[2], -2, _Q) % _Q % _N == r
