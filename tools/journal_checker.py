#!/usr/bin/env python3
"""Check a copy of a Tocsin journal with Python's standard library and the pinned public keys, and nothing else.

    python3 journal_checker.py DIRECTORY KEY [COSIGNER_KEY]          a whole copy: checkpoint, tiles, entries
    python3 journal_checker.py --proof FILE KEY [COSIGNER_KEY]       one entry, as GET /v1/journal/{index} answers

A key is one line, `name+id+base64`, written down when the log was new. Exit status 0: all is what the keys signed;
1: it is not, and the line printed names the place of the first bad byte; 2: wrong arguments. Written from RFC 6962,
8032 and 9162, FIPS 186-5 and C2SP signed-note, tlog-cosignature and tlog-tiles; shares no code with the service.
"""

import base64
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Key = tuple[str, bytes, int, bytes]  # name, key id, signature type, public key
Affine = tuple[int, int]


class BadError(Exception):
    """The log is not what its keys signed; the text names the place."""


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def multiply(add: Callable[[Any, Any], Any], zero: Any, n: int, point: Any) -> Any:
    out = zero
    while n:
        out, point, n = add(out, point) if n & 1 else out, add(point, point), n >> 1
    return out


# Ed25519, RFC 8032, in affine coordinates: slow, short, and only public values.
P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
ORDER = 2**252 + 27742317777372353535851937790883648493


def ed_point(raw: bytes) -> Affine | None:
    number = int.from_bytes(raw, "little")
    y, odd = number % 2**255, number >> 255
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if y >= P or x * x % P != square or (x == 0 and odd):
        return None
    return (P - x if x % 2 != odd else x), y


def ed_add(a: Affine, b: Affine) -> Affine:
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2 % P
    return (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P


def ed25519_ok(key: bytes, message: bytes, signature: bytes) -> bool:
    a, r, s = ed_point(key), ed_point(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None or len(signature) != 64 or s >= ORDER:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % ORDER
    base = ed_point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
    return bool(multiply(ed_add, (0, 1), s, base) == ed_add(r, multiply(ed_add, (0, 1), h, a)))


# ECDSA P-256 with SHA-256, FIPS 186-5; signatures in DER.
Q = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
GX = 0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296
GY = 0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5
SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")


def ec_add(a: Affine | None, b: Affine | None) -> Affine | None:
    if a is None or b is None:
        return a or b
    (x1, y1), (x2, y2) = a, b
    if x1 == x2 and (y1 + y2) % Q == 0:
        return None
    slope = (3 * x1 * x1 - 3) * pow(2 * y1, -1, Q) if a == b else (y2 - y1) * pow(x2 - x1, -1, Q)
    x = (slope * slope - x1 - x2) % Q
    return x, (slope * (x1 - x) - y1) % Q


def p256_ok(spki: bytes, message: bytes, signature: bytes) -> bool:
    x, y = int.from_bytes(spki[27:59], "big"), int.from_bytes(spki[59:], "big")
    if len(spki) != 91 or spki[:27] != SPKI or max(x, y) >= Q or (y * y - x**3 + 3 * x - B) % Q:
        return False
    cut = 4 + signature[3] if 8 <= len(signature) <= 72 else 4
    r, s = int.from_bytes(signature[4:cut], "big"), int.from_bytes(signature[cut + 2 :], "big")
    if not (0 < r < N and 0 < s < N):
        return False
    raw = [value.to_bytes(value.bit_length() // 8 + 1, "big") for value in (r, s)]
    parts = b"".join(b"\2" + bytes([len(one)]) + one for one in raw)
    if signature != b"\x30" + bytes([len(parts)]) + parts:  # another way to write the same two numbers
        return False
    w, e = pow(s, -1, N), int.from_bytes(sha256(message), "big")
    point = ec_add(multiply(ec_add, None, e * w % N, (GX, GY)), multiply(ec_add, None, r * w % N, (x, y)))
    return point is not None and point[0] % N == r


def strict64(text: str) -> bytes:
    """The bytes, or none at all when this is not the one base64 form of them."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return b""
    return raw if base64.b64encode(raw).decode() == text else b""


def pinned_key(text: str) -> Key:
    name, key_id, rest = text.strip().split("+", 2)
    raw = strict64(rest)
    want = sha256(raw[1:] if raw[0] == 2 else name.encode() + b"\n" + raw)[:4]
    if raw[0] not in (1, 2, 4) or want.hex() != key_id:
        raise ValueError("the key id does not belong to the key")
    return name, want, raw[0], raw[1:]


def signed_by(kind: int, public: bytes, text: bytes, signature: bytes) -> bool:
    if kind == 4:
        text, signature = b"cosignature/v1\ntime %d\n" % int.from_bytes(signature[:8], "big") + text, signature[8:]
    return (p256_ok if kind == 2 else ed25519_ok)(public, text, signature)


def open_checkpoint(note: bytes, keys: list[Key]) -> tuple[int, bytes]:
    """Size and root of a checkpoint that every key has signed. Lines end in a line feed and nothing else."""
    lines = note.decode("utf-8", "replace").split("\n")  # what is not UTF-8 cannot be any expected line
    padded = [*lines, "", "", ""]
    size, root = padded[1], strict64(padded[2])
    for number, fine, what in (
        (1, lines[0] == keys[0][0], f"the origin {keys[0][0]}"),
        (2, size.isascii() and size.isdigit() and len(size) < 19 and str(int(size)) == size, "a size"),
        (3, len(root) == 32, "a root"),
        (4, len(lines) > 5 and not lines[3], "empty"),
        (len(lines), not lines[-1], "ended by a line feed"),
    ):
        if not fine:
            raise BadError(f"checkpoint line {number}: not {what}")
    found: dict[tuple[str, bytes], tuple[int, bytes]] = {}
    for number, line in enumerate(lines[4:-1], 5):
        dash, name, text, *rest = [*line.split(" "), "", ""]
        raw = strict64(text) if dash == "\u2014" and len(rest) == 2 else b""
        if len(raw) < 5:
            raise BadError(f"checkpoint line {number}: not a signature line")
        found.setdefault((name, raw[:4]), (number, raw[4:]))
    signed = "".join(line + "\n" for line in lines[:3]).encode()
    for name, key_id, kind, public in keys:
        number, signature = found.get((name, key_id), (0, b""))
        if not number:
            raise BadError(f"checkpoint lines 5 to {len(lines) - 1}: no signature by {name}")
        if not signed_by(kind, public, signed, signature):
            raise BadError(f"checkpoint line {number}, or the text it signs: not a signature by {name}")
    return int(size), root


def tree_root(hashes: list[bytes]) -> bytes:
    """RFC 6962 root, level by level: a lone last node moves up unchanged."""
    while len(hashes) > 1:
        pairs = [sha256(b"\1" + a + b) for a, b in zip(hashes[::2], hashes[1::2], strict=False)]
        hashes = pairs + hashes[len(pairs) * 2 :]
    return hashes[0] if hashes else sha256(b"")


def load(root: Path, level: int | str, n: int, width: int) -> tuple[str, bytes, bool]:
    """Path and bytes of a tile, and whether it is a full one that stands for a partial one."""
    parts = [f"{n // 1000**i % 1000:03d}" for i in range(4) if i == 0 or n >= 1000**i]
    full = f"tile/{level}/" + "".join(f"x{part}/" for part in parts[:0:-1]) + parts[0]
    partial = full if width == 256 else f"{full}.p/{width}"
    path = partial if (root / partial).is_file() else full
    if not (root / path).is_file():
        raise BadError(f"{partial}: missing")
    return path, (root / path).read_bytes(), path != partial


def check_directory(root: Path, keys: list[Key]) -> str:
    size, signed = open_checkpoint((root / "checkpoint").read_bytes(), keys)
    leaves, bad = list[bytes](), ""
    for n in range(-(-size // 256)):
        width, at = min(256, size - n * 256), 0
        (path, data, longer), (named, tile, _) = load(root, "entries", n, width), load(root, 0, n, width)
        for i in range(width):
            end = at + 2 + int.from_bytes(data[at : at + 2], "big")
            leaves.append(sha256(b"\0" + data[at + 2 : end]) if at + 2 <= end <= len(data) else b"")
            if leaves[-1] != tile[32 * i : 32 * i + 32]:
                bad = bad or f"{path} entry {n * 256 + i} byte {at}: not the entry that {named} names"
            at = end
        if at != len(data) and not longer:
            bad = bad or f"{path} byte {at}: more than the entries"
    if tree_root(leaves) != signed:
        raise BadError(bad or "checkpoint line 3: entries and tiles agree, and hash to another root")
    level, hashes = 0, leaves
    while hashes:
        for n in range(-(-len(hashes) // 256)):
            want = b"".join(hashes[n * 256 : n * 256 + 256])
            path, data, longer = load(root, level, n, len(want) // 32)
            if data[: len(want)] != want or (len(data) != len(want) and not longer):
                wrong = next((i for i in range(len(want)) if data[i : i + 1] != want[i : i + 1]), len(want))
                raise BadError(f"{path} byte {wrong}: not what the signed entries make of it")
        level, hashes = level + 1, [tree_root(hashes[i : i + 256]) for i in range(0, len(hashes) - 255, 256)]
    if bad:
        raise BadError(bad)
    return f"{size} entries"


def check_proof(file: Path, keys: list[Key]) -> str:
    shown = json.loads(file.read_bytes())["data"]
    size, signed = open_checkpoint(shown["checkpoint"].encode(), keys)
    at, last, node = shown["index"], size - 1, sha256(b"\0" + shown["leaf"].encode())
    if json.loads(shown["leaf"]) != shown["entry"] or not 0 <= at < size:
        raise BadError("entry: not its leaf, or not under the checkpoint")
    for step in map(bytes.fromhex, shown["proof"]):
        if last == 0:
            raise BadError("proof: too long")
        left = at & 1 or at == last
        node = sha256(b"\1" + (step + node if left else node + step))
        while left and at and not at & 1:
            at, last = at >> 1, last >> 1
        at, last = at >> 1, last >> 1
    if last or node != signed:
        raise BadError("proof: does not lead from the leaf to the signed root")
    return f"entry {shown['index']} of {size}"


def main(arguments: list[str]) -> int:
    check = check_proof if arguments[:1] == ["--proof"] else check_directory
    arguments = arguments[check is check_proof :]
    try:
        keys = [pinned_key(text) for text in arguments[1:]]
        verified = check(Path(arguments[0]), keys) + " as signed by " + keys[0][0]
    except (BadError, OSError) as error:
        print(f"NOT VERIFIED: {error}")
        return 1
    except (ValueError, IndexError, KeyError) as error:
        print(f"{__doc__}\ncannot read an argument: {error}", file=sys.stderr)
        return 2
    print(f"VERIFIED: {verified}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
