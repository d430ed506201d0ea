#!/usr/bin/env python3
"""Check a copy of a Tocsin journal with Python's standard library and the pinned public keys, and nothing else.

    python3 journal_checker.py DIRECTORY KEY [COSIGNER_KEY]      a whole copy: checkpoint, tiles, entries
    python3 journal_checker.py --proof FILE.json KEY [COSIGNER_KEY]   one entry, as GET /v1/journal/{index} answers

A key is one line, `name+id+base64`, which you wrote down when the log was new. Exit status 0: everything is what
the keys signed. 1: it is not; the line printed names the place of the first bad byte. 2: wrong arguments.

Written from RFC 6962, RFC 8032, RFC 9162, FIPS 186-5 and the C2SP documents signed-note, tlog-checkpoint,
tlog-cosignature and tlog-tiles. It shares no code with the service whose log it checks.
"""

import base64
import hashlib
import json
import os
import sys


class Bad(Exception):
    pass


def sha256(data):
    return hashlib.sha256(data).digest()


# ---------------------------------------------------------------- Ed25519, RFC 8032, affine and slow on purpose
P = 2**255 - 19
D = -121665 * pow(121666, P - 2, P) % P
ORDER = 2**252 + 27742317777372353535851937790883648493


def ed_point(raw):
    number = int.from_bytes(raw, "little")
    y, odd = number % 2**255, number >> 255
    if y >= P:
        raise Bad("not a point")
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * v**3 * pow(u * v**7, (P - 5) // 8, P) % P
    if v * x * x % P != u:
        x = x * pow(2, (P - 1) // 4, P) % P
    if v * x * x % P != u or (x == 0 and odd):
        raise Bad("not a point")
    return (P - x if x % 2 != odd else x), y


def ed_add(a, b):
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + k, P - 2, P)
    y = (y1 * y2 + x1 * x2) * pow(1 - k, P - 2, P)
    return x % P, y % P


def ed_mul(n, point):
    out = (0, 1)
    while n:
        if n % 2:
            out = ed_add(out, point)
        point, n = ed_add(point, point), n // 2
    return out


def ed25519_ok(key, message, signature):
    if len(key) != 32 or len(signature) != 64:
        return False
    s = int.from_bytes(signature[32:], "little")
    try:
        a, r = ed_point(key), ed_point(signature[:32])
    except Bad:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % ORDER
    base = ed_point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))
    return s < ORDER and ed_mul(s, base) == ed_add(r, ed_mul(h, a))


# ---------------------------------------------------------------------------------- ECDSA P-256, SHA-256, DER
Q = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)


def ec_add(a, b):
    if a is None or b is None:
        return a or b
    (x1, y1), (x2, y2) = a, b
    if x1 == x2 and (y1 + y2) % Q == 0:
        return None
    if a == b:
        slope = (3 * x1 * x1 - 3) * pow(2 * y1, Q - 2, Q)
    else:
        slope = (y2 - y1) * pow(x2 - x1, Q - 2, Q)
    x = (slope * slope - x1 - x2) % Q
    return x, (slope * (x1 - x) - y1) % Q


def ec_mul(n, point):
    out = None
    while n:
        if n % 2:
            out = ec_add(out, point)
        point, n = ec_add(point, point), n // 2
    return out


def der(r, s):
    parts = b""
    for value in (r, s):
        raw = value.to_bytes(value.bit_length() // 8 + 1, "big")
        parts += b"\2" + bytes([len(raw)]) + raw
    return b"\x30" + bytes([len(parts)]) + parts


def p256_ok(spki, message, signature):
    if len(spki) != 91 or spki[:27].hex() != "3059301306072a8648ce3d020106082a8648ce3d03010703420004":
        return False
    key = int.from_bytes(spki[27:59], "big"), int.from_bytes(spki[59:], "big")
    if max(key) >= Q or (key[1] ** 2 - key[0] ** 3 + 3 * key[0] - B) % Q or not 8 <= len(signature) <= 72:
        return False
    cut = 4 + signature[3]
    r, s = int.from_bytes(signature[4:cut], "big"), int.from_bytes(signature[cut + 2 :], "big")
    if not (0 < r < N and 0 < s < N) or der(r, s) != signature:
        return False
    w, e = pow(s, N - 2, N), int.from_bytes(sha256(message), "big")
    point = ec_add(ec_mul(e * w % N, G), ec_mul(r * w % N, key))
    return point is not None and point[0] % N == r


# --------------------------------------------------------------------------------------------------- checkpoint
def strict64(text):
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return b""
    return raw if base64.b64encode(raw).decode() == text else b""


def pinned_key(text):
    name, key_id, rest = text.strip().split("+", 2)
    raw = strict64(rest)
    kind, public = raw[0], raw[1:]
    want = sha256(public)[:4] if kind == 2 else sha256(name.encode() + b"\n" + raw)[:4]
    if kind not in (1, 2, 4) or want.hex() != key_id:
        raise ValueError("the key id does not belong to the key")
    return name, want, kind, public


def signed_by(kind, public, text, signature):
    if kind == 4:
        stamp = int.from_bytes(signature[:8], "big")
        return ed25519_ok(public, b"cosignature/v1\ntime %d\n" % stamp + text, signature[8:])
    return (p256_ok if kind == 2 else ed25519_ok)(public, text, signature)


def open_checkpoint(note, keys):
    """(size, root) of a checkpoint that every key has signed. Lines end in a line feed and nothing else."""
    lines = note.split(b"\n")
    try:
        lines = [line.decode() for line in lines]
    except UnicodeDecodeError as error:
        raise Bad("checkpoint: not UTF-8 in %r" % error.object) from None
    if lines[0] != keys[0][0]:
        raise Bad("checkpoint line 1: not the origin %s" % keys[0][0])
    if len(lines) < 2 or not lines[1].isascii() or not lines[1].isdigit() or str(int(lines[1])) != lines[1]:
        raise Bad("checkpoint line 2: not a size")
    if len(lines) < 3 or len(strict64(lines[2])) != 32:
        raise Bad("checkpoint line 3: not a root")
    if len(lines) < 6 or lines[3]:
        raise Bad("checkpoint line 4: not empty")
    if lines[-1]:
        raise Bad("checkpoint line %d: no line feed at its end" % len(lines))
    found = {}
    for number, line in enumerate(lines[4:-1], 5):
        parts = line.split(" ")
        raw = strict64(parts[2]) if len(parts) == 3 else b""
        if len(raw) < 5 or parts[0] != "\u2014":
            raise Bad("checkpoint line %d: not a signature line" % number)
        found.setdefault((parts[1], raw[:4]), (number, raw[4:]))
    text = "".join(line + "\n" for line in lines[:3]).encode()
    for name, key_id, kind, public in keys:
        if (name, key_id) not in found:
            raise Bad("checkpoint lines 5 to %d: no signature by %s" % (len(lines) - 1, name))
        number, signature = found[name, key_id]
        if not signed_by(kind, public, text, signature):
            raise Bad("checkpoint line %d, or the text it signs: not the signature of %s" % (number, name))
    return int(lines[1]), strict64(lines[2])


# --------------------------------------------------------------------------------------------------------- tree
def tree_root(hashes):
    """RFC 6962 root: a lone last node moves up unchanged."""
    while len(hashes) > 1:
        pairs = [sha256(b"\1" + a + b) for a, b in zip(hashes[::2], hashes[1::2])]
        hashes = pairs + hashes[len(pairs) * 2 :]
    return hashes[0] if hashes else sha256(b"")


def tile_path(level, n, width):
    parts = ["%03d" % (n % 1000)]
    while n >= 1000:
        n //= 1000
        parts.insert(0, "x%03d" % (n % 1000))
    return "tile/%s/%s" % (level, "/".join(parts)) + ("" if width == 256 else ".p/%d" % width)


def load(root, level, n, width):
    for path, cut in ((tile_path(level, n, width), False), (tile_path(level, n, 256), True)):
        if os.path.isfile(os.path.join(root, path)):
            with open(os.path.join(root, path), "rb") as file:
                return path, file.read(), cut and width < 256
    raise Bad("%s: missing" % tile_path(level, n, width))


def check_directory(root, keys):
    with open(os.path.join(root, "checkpoint"), "rb") as file:
        size, signed = open_checkpoint(file.read(), keys)
    leaves, bad = [], None
    for n in range(-(-size // 256)):
        width = min(256, size - n * 256)
        path, data, longer = load(root, "entries", n, width)
        _, tile, _ = load(root, 0, n, width)
        at = 0
        for i in range(width):
            end = at + 2 + int.from_bytes(data[at : at + 2], "big")
            leaf = sha256(b"\0" + data[at + 2 : end]) if at + 2 <= end <= len(data) else b""
            if leaf != tile[32 * i : 32 * i + 32] and not bad:
                bad = "%s entry %d (byte %d): not the entry that %s names" % (path, n * 256 + i, at, tile_path(0, n, width))
            leaves.append(leaf)
            at = end
        if at != len(data) and not longer and not bad:
            bad = "%s byte %d: more than the entries" % (path, at)
    if tree_root(leaves) != signed:
        raise Bad(bad or "checkpoint line 3: entries and tiles agree, and hash to another root")
    levels = [leaves]
    while len(levels[-1]) >= 256:
        last = levels[-1]
        levels.append([tree_root(last[i : i + 256]) for i in range(0, len(last) // 256 * 256, 256)])
    for level, hashes in enumerate(levels):
        for n in range(-(-len(hashes) // 256)):
            want = hashes[n * 256 : n * 256 + 256]
            path, data, longer = load(root, level, n, len(want))
            for i, one in enumerate(want):
                if data[32 * i : 32 * i + 32] != one:
                    raise Bad("%s hash %d: not what the signed entries make of it" % (path, i))
            if len(data) != 32 * len(want) and not longer:
                raise Bad("%s byte %d: more than the tile" % (path, 32 * len(want)))
    if bad:
        raise Bad(bad)
    return "%d entries are what %s signed" % (size, " and ".join(key[0] for key in keys))


def check_proof(path, keys):
    with open(path, "rb") as file:
        shown = json.load(file)
    shown = shown.get("data", shown)
    size, signed = open_checkpoint(shown["checkpoint"].encode(), keys)
    at, last, node = shown["index"], size - 1, sha256(b"\0" + shown["leaf"].encode())
    if json.loads(shown["leaf"]) != shown["entry"] or not 0 <= at < size:
        raise Bad("entry: not the leaf, or not under the checkpoint")
    for step in shown["proof"]:
        if last == 0:
            raise Bad("proof: too long")
        left = at % 2 == 1 or at == last
        node = sha256(b"\1" + (bytes.fromhex(step) + node if left else node + bytes.fromhex(step)))
        while left and at % 2 == 0 and at:
            at, last = at // 2, last // 2
        at, last = at // 2, last // 2
    if last or node != signed:
        raise Bad("proof: does not lead from the leaf to the signed root")
    return "entry %d of %d is what %s signed" % (shown["index"], size, " and ".join(key[0] for key in keys))


def main(arguments):
    proof = arguments[:1] == ["--proof"]
    arguments = arguments[1:] if proof else arguments
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        keys = [pinned_key(text) for text in arguments[1:]]
    except (ValueError, IndexError) as error:
        print("not a key: %s" % error, file=sys.stderr)
        return 2
    try:
        print((check_proof if proof else check_directory)(arguments[0], keys))
    except (Bad, OSError) as error:
        print("NOT VERIFIED: %s" % error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
