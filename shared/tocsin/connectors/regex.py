"""Regular expressions of clients, matched in linear time: no text and no pattern makes it slow.

The syntax is RE2's, as Prometheus and Alertmanager use it, in the parts that matchers need: literals, `.`, classes
with ranges, `\\d \\w \\s` and POSIX names, groups (plain, named, non-capturing, with the flags i and s), `|`,
`* + ? {n,m}` (lazy forms match the same texts), `^ $ \\A \\z`. What RE2 knows beyond (`\\b`, `\\pL`, other flags) is
refused by name, so that a pattern never means something else here than there.

A pattern becomes a program of at most MAX_PROGRAM steps (Thompson 1968; Cox, "Regular Expression Matching Can Be
Simple And Fast", 2007); matching walks the set of reachable steps once per character: O(len(text) · MAX_PROGRAM).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NoReturn

MAX_PATTERN: Final = 1024
MAX_PROGRAM: Final = 2_000
MAX_REPEAT: Final = 1000
MAX_GROUPS: Final = 100
#: Places of steps that one pattern remembers, and patterns that are kept: some 50 MB if somebody tries.
_MEMORY: Final = 10_000
_KEPT: Final = 64

Ranges = tuple[tuple[str, str], ...]


class RegexError(ValueError):
    """A pattern is wrong or beyond what is supported; the text says where and why, in RE2's words where it has them."""


_TOP: Final = chr(0x10FFFF)
_DIGIT: Final[Ranges] = (("0", "9"),)
_WORD: Final[Ranges] = (("0", "9"), ("A", "Z"), ("_", "_"), ("a", "z"))
_SPACE: Final[Ranges] = (("\t", "\n"), ("\f", "\r"), (" ", " "))
_CLASSES: Final = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_POSIX: Final[dict[str, Ranges]] = {
    "alnum": (("0", "9"), ("A", "Z"), ("a", "z")),
    "alpha": (("A", "Z"), ("a", "z")),
    "ascii": (("\x00", "\x7f"),),
    "blank": (("\t", "\t"), (" ", " ")),
    "cntrl": (("\x00", "\x1f"), ("\x7f", "\x7f")),
    "digit": _DIGIT,
    "graph": (("!", "~"),),
    "lower": (("a", "z"),),
    "print": ((" ", "~"),),
    "punct": (("!", "/"), (":", "@"), ("[", "`"), ("{", "~")),
    "space": (("\t", "\r"), (" ", " ")),
    "upper": (("A", "Z"),),
    "word": _WORD,
    "xdigit": (("0", "9"), ("A", "F"), ("a", "f")),
}
_CONTROL: Final = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}


def _inverted(ranges: Iterable[tuple[str, str]]) -> Ranges:
    made, start = [], 0
    for low, high in sorted(ranges):
        if ord(low) > start:
            made.append((chr(start), chr(ord(low) - 1)))
        start = max(start, ord(high) + 1)
    if start <= 0x10FFFF:
        made.append((chr(start), _TOP))
    return tuple(made)


@dataclass(frozen=True, slots=True)
class _Char:
    """Matches one character of a set, or with `inverse` one that is not in it; `fold` compares without case."""

    ranges: Ranges
    fold: bool = False
    inverse: bool = False

    def has(self, char: str) -> bool:
        return self._in(char) != self.inverse

    def _in(self, char: str) -> bool:
        if any(low <= char <= high for low, high in self.ranges):
            return True
        if not self.fold:
            return False
        others = {char.lower(), char.upper(), char.swapcase()} - {char}
        return any(low <= one <= high for one in others if len(one) == 1 for low, high in self.ranges)


# The tree of a pattern: _Char, or ("cat", [..]), ("alt", [..]), ("star" | "plus" | "maybe", node), ("begin",), ("end",)
Node = _Char | tuple  # type: ignore[type-arg]


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.text, self.at, self.groups = pattern, 0, 0

    def error(self, reason: str, part: str) -> NoReturn:
        raise RegexError(f"error parsing regexp: {reason}: `{part[:60]}`")

    def peek(self, text: str) -> bool:
        return self.text.startswith(text, self.at)

    def parse(self) -> Node:
        node = self.alternatives(fold=False, dotall=False)
        if self.at < len(self.text):
            self.error("unexpected )", self.text)
        return node

    def alternatives(self, *, fold: bool, dotall: bool) -> Node:
        branches: list[Node] = []
        parts: list[Node] = []
        while self.at < len(self.text) and not self.peek(")"):
            if self.peek("|"):
                self.at += 1
                branches.append(("cat", parts))
                parts = []
            elif self.peek("(?") and not self.peek("(?:") and not self.peek("(?P<") and not self.peek("(?<"):
                fold, dotall, group = self.flags(fold, dotall)
                if group is not None:
                    parts.append(self.repeated(group))
            else:
                parts.append(self.repeated(self.atom(fold, dotall)))
        branches.append(("cat", parts))
        return branches[0] if len(branches) == 1 else ("alt", branches)

    def flags(self, fold: bool, dotall: bool) -> tuple[bool, bool, Node | None]:
        """`(?i)` changes the rest of the group, `(?i:…)` is a group of its own."""
        start = self.at
        self.at += 2
        on = True
        own_fold, own_dotall = fold, dotall
        while self.at < len(self.text) and self.text[self.at] not in "):":
            flag = self.text[self.at]
            if flag == "-":
                on = False
            elif flag == "i":
                own_fold = on
            elif flag == "s":
                own_dotall = on
            else:
                self.error("flag not supported", self.text[start : self.at + 1])
            self.at += 1
        if self.at == len(self.text):
            self.error("missing closing )", self.text)
        self.at += 1
        if self.text[self.at - 1] == ")":
            return own_fold, own_dotall, None
        group = self.alternatives(fold=own_fold, dotall=own_dotall)
        self.close()
        return fold, dotall, group

    def close(self) -> None:
        if not self.peek(")"):
            self.error("missing closing )", self.text)
        self.at += 1

    def atom(self, fold: bool, dotall: bool) -> Node:
        char = self.text[self.at]
        self.at += 1
        if char == "(":
            self.groups += 1
            if self.groups > MAX_GROUPS:
                self.error("expression nests too deeply", self.text)
            for opening in ("?:", "?P<", "?<"):
                if self.peek(opening):
                    self.at += len(opening)
                    if opening != "?:":
                        end = self.text.find(">", self.at)
                        if end < 0 or not self.text[self.at : end].isidentifier():
                            self.error("invalid named capture", self.text[self.at - 4 :])
                        self.at = end + 1
                    break
            node = self.alternatives(fold=fold, dotall=dotall)
            self.close()
            return node
        if char == "[":
            return self.bracket(fold)
        if char == ".":
            return _Char((("\x00", _TOP),) if dotall else _inverted((("\n", "\n"),)))
        if char == "^":
            return ("begin",)
        if char == "$":
            return ("end",)
        if char == "{":
            self.at -= 1
            if self.bounds() is not None:
                self.error("missing argument to repetition operator", char)
            self.at += 1
        if char in "*+?":
            self.error("missing argument to repetition operator", char)
        if char == "\\":
            if self.peek("A") or self.peek("z"):
                self.at += 1
                return ("begin",) if self.text[self.at - 1] == "A" else ("end",)
            return _Char(self.escape(), fold)
        return _Char(((char, char),), fold)

    def escape(self) -> Ranges:
        if self.at == len(self.text):
            self.error("trailing backslash at end of expression", "")
        char = self.text[self.at]
        self.at += 1
        if char.lower() in _CLASSES:
            ranges = _CLASSES[char.lower()]
            return ranges if char.islower() else _inverted(ranges)
        if char == "x":
            digits = self.text[self.at : self.at + 2]
            if len(digits) < 2:
                self.error("invalid escape sequence", "\\x" + digits)
            if self.peek("{"):
                end = self.text.find("}", self.at)
                digits, self.at = self.text[self.at + 1 : max(end, self.at + 1)], max(end, self.at) + 1
            else:
                self.at += 2
            try:
                one = chr(int(digits, 16)) if digits.isalnum() else self.error("invalid escape sequence", "\\x")
            except (ValueError, OverflowError):
                self.error("invalid escape sequence", "\\x" + digits)
            return ((one, one),)
        if char in _CONTROL:
            return ((_CONTROL[char], _CONTROL[char]),)
        if char.isascii() and char.isalnum():
            self.error("escape not supported", "\\" + char)
        return ((char, char),)

    def bracket(self, fold: bool) -> _Char:
        start = self.at - 1
        inverse = self.peek("^")
        self.at += inverse
        ranges: list[tuple[str, str]] = []
        first = True
        while first or not self.peek("]"):
            if self.at >= len(self.text):
                self.error("missing closing ]", self.text[start:])
            first = False
            if self.peek("[:"):
                end = self.text.find(":]", self.at)
                name = self.text[self.at + 2 : end] if end > 0 else ""
                known = _POSIX.get(name.removeprefix("^"))
                if known is None:
                    self.error("invalid character class range", self.text[self.at : self.at + 12])
                ranges += _inverted(known) if name.startswith("^") else known
                self.at = end + 2
                continue
            low = self.member()
            if self.peek("-") and self.text[self.at + 1 : self.at + 2] not in ("]", "") and len(low) == 1:
                self.at += 1
                high = self.member()
                if low[0][0] != low[0][1] or len(high) != 1 or high[0][0] < low[0][0]:
                    self.error("invalid character class range", self.text[start : self.at])
                ranges.append((low[0][0], high[0][1]))
            else:
                ranges += low
        self.at += 1
        return _Char(tuple(ranges), fold, inverse)

    def member(self) -> Ranges:
        if self.at >= len(self.text):
            self.error("missing closing ]", self.text)
        char = self.text[self.at]
        self.at += 1
        return self.escape() if char == "\\" else ((char, char),)

    def repeated(self, node: Node) -> Node:
        times = 0
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in "*+?":
                self.at += 1
                node = ({"*": "star", "+": "plus", "?": "maybe"}[char], node)
            elif char == "{" and (bounds := self.bounds()) is not None:
                low, high = bounds
                tail: list[Node] = [("maybe", node)] * (high - low) if high is not None else [("star", node)]
                if max(low, high or 0) > MAX_REPEAT or low > (high if high is not None else low):
                    self.error("invalid repeat count", self.text[self.at - 8 : self.at])
                node = ("cat", [*[node] * low, *tail])
            else:
                return node
            times += 1
            if times > 1:
                self.error("invalid nested repetition operator", char)
            if self.peek("?"):
                self.at += 1
        return node

    def bounds(self) -> tuple[int, int | None] | None:
        """The numbers of {n}, {n,} or {n,m}; None when the brace is a literal one, as RE2 reads it."""
        end = self.text.find("}", self.at)
        low, comma, high = self.text[self.at + 1 : end].partition(",") if end > 0 else ("", "", "")
        if not (low.isascii() and low.isdigit() and len(low) < 6 and (not high or (high.isdigit() and len(high) < 6))):
            return None
        self.at = end + 1
        return int(low), int(high) if high else (None if comma else int(low))


class _Compiler:
    """Steps of a program: (char, next), (None, (next, …)) for a choice, "begin"/"end" with next, or a match."""

    def __init__(self) -> None:
        self.steps: list[tuple[_Char | str | None, tuple[int, ...]]] = []
        self._visits = 0

    def add(self, what: _Char | str | None, following: tuple[int, ...]) -> int:
        if len(self.steps) >= MAX_PROGRAM:
            raise RegexError("error parsing regexp: expression too large")
        self.steps.append((what, following))
        return len(self.steps) - 1

    def compile(self, node: Node, following: int) -> int:
        """Steps that match a node and go on at `following`; returns where they begin."""
        self._visits += 1  # repeated empty parts add no steps, and must not cost time without bound either
        if self._visits > 10 * MAX_PROGRAM:
            raise RegexError("error parsing regexp: expression too large")
        if isinstance(node, _Char):
            return self.add(node, (following,))
        kind = node[0]
        if kind == "cat":
            for part in reversed(node[1]):
                following = self.compile(part, following)
            return following
        if kind == "alt":
            return self.add(None, tuple(self.compile(part, following) for part in node[1]))
        if kind == "maybe":
            return self.add(None, (self.compile(node[1], following), following))
        if kind in ("star", "plus"):
            loop = self.add(None, ())
            start = self.compile(node[1], loop)
            self.steps[loop] = (None, (start, following))
            return loop if kind == "star" else start
        return self.add(kind, (following,))


class Regex:
    """A pattern that must match a whole text, as in `label=~"pattern"`. Raises RegexError."""

    def __init__(self, pattern: str) -> None:
        if len(pattern) > MAX_PATTERN:
            raise RegexError(f"error parsing regexp: longer than {MAX_PATTERN} characters")
        self.pattern = pattern
        compiler = _Compiler()
        self._match = compiler.add("match", ())
        try:
            start = compiler.compile(_Parser(pattern).parse(), self._match)
        except RecursionError:
            raise RegexError("error parsing regexp: expression nests too deeply") from None
        self._steps = compiler.steps
        self._begin = (start,)
        self._memory: dict[tuple[frozenset[int], str], frozenset[int]] = {}
        self._remembered = 0

    def _reach(self, steps: Iterable[int], *, begin: bool, end: bool) -> frozenset[int]:
        """Steps reachable without reading a character."""
        found: set[int] = set()
        stack = list(steps)
        while stack:
            place = stack.pop()
            if place in found:
                continue
            found.add(place)
            what, following = self._steps[place]
            if what is None or (what == "begin" and begin) or (what == "end" and end):
                stack.extend(following)
        return frozenset(found)

    def matches(self, text: str) -> bool:
        """Whether the pattern matches all of `text`."""
        now = self._reach(self._begin, begin=True, end=not text)
        last = len(text) - 1
        for place, char in enumerate(text):
            known = self._memory.get((now, char)) if place != last else None
            if known is None:
                read = (
                    following[0]
                    for what, following in (self._steps[step] for step in now)
                    if isinstance(what, _Char) and what.has(char)
                )
                known = self._reach(read, begin=False, end=place == last)
                if place != last:
                    if self._remembered >= _MEMORY:
                        self._memory.clear()
                        self._remembered = 0
                    self._memory[now, char] = known
                    self._remembered += 1 + len(known)
            if not known:
                return False
            now = known
        return self._match in now


@lru_cache(maxsize=_KEPT)
def compiled(pattern: str) -> Regex:
    """The Regex of a pattern, remembered. Raises RegexError."""
    return Regex(pattern)
