"""Strict JSON reading: one meaning per text, and a bound on everything a text can cost.

Beyond RFC 8259 as the standard library reads it, refused are: other encodings than UTF-8 without a byte order
mark, duplicate keys, NaN and Infinity, lone surrogates, numbers that DynamoDB could not keep (34 significant
digits, magnitude 1e-130 to 9.99e125), and texts that are too deep or have too many parts. Refusals never
repeat more of the text than 64 escaped characters of a key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NoReturn

from tocsin.kernel.errors import Detail, Refusal

_TOO_BIG: Final = 1e126
_SMALLEST: Final = 1e-130
#: Strings, and the characters that add a part; strings are matched whole, so that their content does not
#: count.
_PART = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{,]', re.DOTALL)
_NONZERO = re.compile(r"-?[0.]*[1-9]")
_DIGITS = re.compile(r"\d+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one JSON text. `depth` counts the outermost value as 1; `parts` are strings, containers and
    commas.
    """

    depth: int = 32
    keys_per_object: int = 256
    array_items: int = 1000
    number_digits: int = 34
    parts: int = 400_000


@dataclass(frozen=True, slots=True)
class Line:
    """One non-empty NDJSON line: its number from 1, and its value or why it is refused."""

    number: int
    value: Any = None
    refusal: Refusal | None = None


def shown(text: object) -> str:
    """At most 64 characters of a sender's text, escaped to printable ASCII, to name it in a message."""
    escaped = str(text)[:65].encode("unicode_escape").decode("ascii")
    return escaped if len(escaped) <= 64 else escaped[:61] + "..."


def _refuse(code: str, message: str, rule: str, fix: str, where: str = "(body)") -> NoReturn:
    raise Refusal(code, message, [Detail(where, rule, fix)])


class _Reader:
    """A decoder bound to one set of limits; holds no state between texts."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._decode = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_int=self._integer,
            parse_float=self._float,
            parse_constant=self._constant,
        ).decode

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(pairs) > self._limits.keys_per_object:
            fix = f"send at most {self._limits.keys_per_object} keys in one object"
            _refuse("ERR_JSON_SIZE", "An object has too many keys.", "keys-per-object", fix)
        if len(made) != len(pairs):
            left = set(made)
            for key, _ in pairs:
                if key not in left:
                    message = "A key appears twice in one object."
                    _refuse("ERR_JSON_DUPLICATE_KEY", message, "unique-keys", "send each key once", shown(key))
                left.remove(key)
        return made

    def _digits(self, text: str) -> None:
        """Refuse more significant digits than are kept; leading zeros and the exponent do not count."""
        mantissa = re.split("[eE]", text, maxsplit=1)[0]
        if len("".join(_DIGITS.findall(mantissa)).lstrip("0")) > self._limits.number_digits:
            fix = f"send at most {self._limits.number_digits} significant digits, or a string"
            _refuse("ERR_JSON_NUMBER_RANGE", "A number has too many digits.", "number-digits", fix)

    def _integer(self, text: str) -> int:
        if len(text) > self._limits.number_digits:
            self._digits(text)
        return int(text)

    def _float(self, text: str) -> float:
        if len(text) > self._limits.number_digits:
            self._digits(text)
        value = float(text)
        is_zero = value == 0 and not _NONZERO.match(text)
        if not (is_zero or _SMALLEST <= abs(value) < _TOO_BIG):
            fix = "send 0 or a magnitude between 1e-130 and 9.99e125"
            _refuse("ERR_JSON_NUMBER_RANGE", "A number is out of range.", "number-range", fix)
        return value

    def _constant(self, name: str) -> NoReturn:
        fix = "leave the field out or send a finite number"
        _refuse("ERR_JSON_NONFINITE", f"{name} is not JSON.", "finite-numbers", fix)

    def read(self, data: bytes) -> Any:
        if data[:3] == b"\xef\xbb\xbf":
            _refuse(
                "ERR_JSON_ENCODING",
                "The text begins with a byte order mark.",
                "utf-8",
                "send UTF-8 without it",
            )
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            message = f"Byte {error.start} is not UTF-8."
            raise Refusal("ERR_JSON_ENCODING", message, [Detail("(body)", "utf-8", "send UTF-8")]) from None
        if "\0" in text[:4]:  # how ASCII looks in UTF-16 and UTF-32
            _refuse("ERR_JSON_ENCODING", "The text is not UTF-8.", "utf-8", "send UTF-8")
        try:
            value = self._decode(text)
        except json.JSONDecodeError as error:
            message = f"Not JSON: {error.msg} at line {error.lineno} column {error.colno}."
            raise Refusal("ERR_JSON_SYNTAX", message, [Detail("(body)", "json", "send RFC 8259 JSON")]) from None
        except RecursionError:  # raised by the C scanner's own guard, long before the stack ends
            self._too_deep()
        self._check_shape(value)
        if b"\\u" in data:
            self._check_surrogates(value)
        return value

    def _too_deep(self) -> NoReturn:
        fix = f"nest at most {self._limits.depth} levels"
        _refuse("ERR_JSON_DEPTH", "The text is nested too deeply.", "depth", fix)

    def _check_shape(self, value: Any) -> None:
        """Depth of the whole text and length of every array but the outermost, one level at a time."""
        longest = self._limits.array_items
        level = [value] if type(value) in (dict, list) else []
        for depth in range(self._limits.depth + 1):
            if not level:
                return
            if depth == self._limits.depth:
                break
            level = [
                child
                for node in level
                for child in (node.values() if type(node) is dict else node)
                if type(child) is dict or type(child) is list
            ]
            for node in level:
                if len(node) > longest and type(node) is list:
                    fix = f"send at most {longest} items in one array"
                    _refuse("ERR_JSON_SIZE", "An array has too many items.", "array-items", fix)
        self._too_deep()

    def _check_surrogates(self, value: Any) -> None:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            fix = "send the character itself or a complete surrogate pair"
            raise Refusal(
                "ERR_JSON_ENCODING", "A string holds a lone surrogate.", [Detail("(body)", "utf-8", fix)]
            ) from None


def _suspicious(data: bytes, limits: Limits) -> bool:
    """Whether a text could have more parts than allowed; never False when it has."""
    return len(data) > limits.parts and sum(map(data.count, (b'"', b",", b"[", b"{"))) > limits.parts


def _spend(data: bytes, parts: int) -> int:
    """What is left of a budget of `parts` after this text, counted without building anything."""
    left = parts - sum(1 for _ in islice(_PART.finditer(data), parts + 1))
    if left < 0:
        fix = "send fewer or smaller items per request"
        _refuse("ERR_JSON_SIZE", "The text has too many parts.", "parts", fix)
    return left


LIMITS: Final = Limits()
_READERS: Final[dict[Limits, _Reader]] = {}


def _reader(limits: Limits) -> _Reader:
    reader = _READERS.get(limits)
    if reader is None:
        reader = _READERS[limits] = _Reader(limits)
    return reader


def read(data: bytes, limits: Limits = LIMITS) -> Any:
    """The value of one JSON text in UTF-8.

    Raises Refusal: ERR_JSON_ENCODING, ERR_JSON_SYNTAX, ERR_JSON_DUPLICATE_KEY, ERR_JSON_NONFINITE,
    ERR_JSON_NUMBER_RANGE, ERR_JSON_DEPTH or ERR_JSON_SIZE. Time and memory grow linearly with len(data), and
    memory stays below about 60 MB for 4 MiB whatever the text.
    """
    if _suspicious(data, limits):
        _spend(data, limits.parts)
    return _reader(limits).read(data)


def read_lines(data: bytes, limits: Limits = LIMITS) -> Iterator[Line]:
    """Values of newline-delimited JSON, one per non-blank line, lazily; a bad line yields its refusal and
    reading goes on.

    Only `parts` bounds the lines together: when they exceed it, ERR_JSON_SIZE is raised for the whole text.
    """
    reader, budget, suspicious = _reader(limits), limits.parts, _suspicious(data, limits)
    start, number = 0, 0
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        line, start, number = data[start:end], end + 1, number + 1
        if not line.strip(b" \t\r"):
            continue
        if suspicious:
            budget = _spend(line, budget)
        try:
            yield Line(number, reader.read(line))
        except Refusal as refusal:
            details = [Detail(f"line {number}", d.rule, d.fix) for d in refusal.details]
            yield Line(number, refusal=Refusal(refusal.code, refusal.message, details))


def count_strings_over(value: Any, limit: int) -> int:
    """How many strings of a JSON value, keys included, have more than `limit` characters."""
    over, stack = 0, [value]
    while stack:
        node = stack.pop()
        if type(node) is str:
            over += len(node) > limit
        elif type(node) is dict:
            stack.extend(node)
            stack.extend(node.values())
        elif type(node) is list:
            stack.extend(node)
    return over
