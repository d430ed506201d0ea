"""Running the project's own functions on Z3 terms, along every path that their conditions can take.

`Int`, `Bool`, `Words` and `Text` stand for any value of their kind and have the operators that the code uses. Where the
code asks whether a `Bool` holds, the run forks: it is repeated once for each answer that is still possible. So
`paths` yields every (condition, result) that the function can come to, and what is proved of all of them is proved of
the function, for all inputs: code = spec, without a second model of the code that could differ from it.

The code runs from a copy of its source, so that a weakened copy can be run in its place, and with a few of its globals
replaced (`int`, `set`, the order of levels, subtyping): see REPLACED.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import z3

ROOT: Final = Path(__file__).resolve().parents[2]
#: Elements that a set may have. Sets are bit vectors; operations on them are bit by bit.
WIDTH: Final = 32


class _Run:
    """The one run that is going on: what was answered so far, and what is known."""

    def __init__(self, given: list[z3.BoolRef], answers: list[bool]) -> None:
        self.solver = z3.Solver()
        self.solver.add(*given)
        self.answers, self.taken = answers, list[bool]()
        self.conditions = list[z3.BoolRef]()
        self.open = list[list[bool]]()  # answers of runs that are still to be made

    def ask(self, term: z3.BoolRef) -> bool:
        if len(self.taken) < len(self.answers):
            answer = self.answers[len(self.taken)]
        else:
            can = [self.solver.check(one) != z3.unsat for one in (term, z3.Not(term))]
            answer = can[0]
            if all(can):
                self.open.append([*self.taken, False])
        self.taken.append(answer)
        condition = term if answer else z3.Not(term)
        self.conditions.append(condition)
        self.solver.add(condition)
        return answer


_run: _Run | None = None


def paths(function: Callable[[], Any], *given: Any) -> Iterator[tuple[z3.BoolRef, Any]]:
    """Every condition under which the function comes to a result, with the result, while `given` holds."""
    global _run
    facts = [term(one) for one in given]
    waiting: list[list[bool]] = [[]]
    while waiting:
        _run = _Run(facts, waiting.pop())
        try:
            result = function()
        finally:
            run, _run = _run, None
        waiting += run.open
        yield z3.And(*facts, *run.conditions), result


def term(value: Any) -> Any:
    """The Z3 term of a value."""
    return value.of if isinstance(value, Int | Bool | Words) else value


class Bool:
    """A condition. Asking whether it holds forks the run."""

    def __init__(self, of: Any) -> None:
        self.of = z3.simplify(of) if isinstance(of, z3.BoolRef) else z3.BoolVal(of)

    def __bool__(self) -> bool:
        if z3.is_true(self.of) or z3.is_false(self.of):
            return bool(z3.is_true(self.of))
        assert _run is not None, "a condition is asked for outside of paths()"
        return _run.ask(self.of)

    def __eq__(self, other: object) -> Any:
        return Bool(self.of == term(other))

    __hash__ = None  # type: ignore[assignment]


class Int:
    """An integer."""

    def __init__(self, of: Any) -> None:
        self.of = z3.Int(of) if isinstance(of, str) else of

    def __add__(self, other: Any) -> Int:
        return Int(self.of + term(other))

    def __radd__(self, other: Any) -> Int:
        return Int(term(other) + self.of)

    def __sub__(self, other: Any) -> Int:
        return Int(self.of - term(other))

    def __rsub__(self, other: Any) -> Int:
        return Int(term(other) - self.of)

    def __mul__(self, other: Any) -> Int:
        return Int(self.of * term(other))

    def __rmul__(self, other: Any) -> Int:
        return Int(term(other) * self.of)

    def __floordiv__(self, other: Any) -> Int:
        """By a positive number, where SMT-LIB's `div` rounds down as Python does."""
        return Int(self.of / term(other))

    def __rshift__(self, places: int) -> Int:
        return Int(self.of / (1 << places))

    def __le__(self, other: Any) -> Bool:
        return Bool(self.of <= term(other))

    def __lt__(self, other: Any) -> Bool:
        return Bool(self.of < term(other))

    def __ge__(self, other: Any) -> Bool:
        return Bool(self.of >= term(other))

    def __gt__(self, other: Any) -> Bool:
        return Bool(self.of > term(other))

    def __eq__(self, other: object) -> Any:
        return Bool(self.of == term(other)) if isinstance(other, Int | int) else False

    def __ne__(self, other: object) -> Any:
        return Bool(self.of != term(other)) if isinstance(other, Int | int) else True

    __hash__ = None  # type: ignore[assignment]


class Words:
    """A set of words."""

    def __init__(self, of: Any) -> None:
        self.of = z3.BitVec(of, WIDTH) if isinstance(of, str) else of

    def __le__(self, other: Words) -> Bool:
        return Bool(self.of & ~other.of == 0)

    def __and__(self, other: Words) -> Words:
        return Words(self.of & other.of)

    def __contains__(self, word: Text) -> bool:
        return bool(Bool(z3.LShR(self.of, word.of) & 1 == 1))

    def __bool__(self) -> bool:
        return bool(Bool(self.of != 0))


class Text:
    """One of the words that sets are made of."""

    def __init__(self, name: str) -> None:
        self.of = z3.BitVec(name, WIDTH)

    def __eq__(self, other: object) -> Any:
        return Bool(self.of == other.of) if isinstance(other, Text) else False

    __hash__ = None  # type: ignore[assignment]


class Down:
    """What of a health document the gates read: whether the service is down."""

    def __init__(self, is_down: Bool) -> None:
        self.is_down = is_down

    def __contains__(self, _: object) -> bool:
        return bool(self.is_down)

    def __getitem__(self, _: str) -> Down:
        return self


class State:
    """What of a state the gates read: whether it is "active"."""

    def __init__(self, is_active: Bool) -> None:
        self.is_active = is_active

    def __eq__(self, other: object) -> Any:
        return self.is_active if other == "active" else False

    __hash__ = None  # type: ignore[assignment]


class _Levels:
    """Levels by rank: a level stands for its rank."""

    @staticmethod
    def index(level: Int) -> Int:
        return level


_TYPE: Final = z3.DeclareSort("Type")
_SUBTYPE: Final = z3.Function("subtype", _TYPE, _TYPE, z3.BoolSort())


def type_of(name: str) -> Any:
    """Any type."""
    return z3.Const(name, _TYPE)


def subtype(a: Any, b: Any) -> Bool:
    """Any relation between types."""
    return Bool(_SUBTYPE(a, b))


def _kept(value: Any) -> Any:
    return value


def _unchecked(*_: Any) -> None:
    """For checks of the kinds of values, which terms have by construction."""


#: Globals of the code under proof that stand for something else while it runs on terms.
REPLACED: Final[Mapping[str, Any]] = {
    "int": _kept,
    "set": _kept,
    "LEVELS": _Levels,
    "subtype": subtype,
    "need": _unchecked,
}


def load(path: str, old: str = "", new: str = "") -> ModuleType:
    """A copy of a module of the project, with one place changed when `old` is given, ready to run on terms.

    Raises ValueError when `old` is not there exactly once.
    """
    source = (ROOT / path).read_text("utf-8")
    if old:
        source = changed(source, path, old, new)
    made = ModuleType(f"symbolic:{path}")
    made.__dict__["__file__"] = str(ROOT / path)
    sys.modules[made.__name__] = made  # dataclasses look their module up
    exec(compile(source, path, "exec"), made.__dict__)  # noqa: S102 - the project's own source
    made.__dict__.update(REPLACED)
    return made


def changed(text: str, path: str, old: str, new: str) -> str:
    """The text with the one place changed. Raises ValueError when it is not there exactly once."""
    if text.count(old) != 1:
        raise ValueError(f"{path}: {old!r} is there {text.count(old)} times, and must be there once")
    return text.replace(old, new)
