"""How a JSON object becomes a frozen dataclass and back, by the types that its fields name.

Known types are int, float (a JSON integer too), str, bool, another such dataclass, `T | None` and
`tuple[T, ...]` of these, and `dict[str, float]`. A field with a default may be missing; what the
dataclass does not know is passed over. Numbers are bounded, so that no sum, quotient or date that a
reader makes of them can overflow: files are written by others, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from types import UnionType
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

WHOLE_LIMIT = 1 << 63
NUMBER_LIMIT = 1e100
"""Beyond what float32 can say: no measurement is as large."""

LEFT_OUT = {"left_out": True}
"""Metadata of a field that is None and not written where there is nothing to say."""

Shape = TypeVar("Shape")
Check = Callable[[Any], Any]
_ABSENT: Any = object()


class MisfitError(ValueError):
    """A field is missing, or its value is not of its type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """One field, as the reader needs it."""

    name: str
    """In JSON."""
    put: Callable[[Any, Any], None]
    """Sets the field of a new, still empty object."""
    check: Check
    default: Any
    """_ABSENT: it must be there."""
    number: Any
    """int or float, if that is its type: then it is checked in place; else None."""
    limit: float

    def value_of(self, given: Any) -> Any:
        """What belongs into the field; MisfitError if nothing does."""
        if given is not _ABSENT:
            return self.check(given)
        if self.default is _ABSENT:
            raise MisfitError(self.name)
        return self.default


class Form(Generic[Shape]):
    """Reads and writes one frozen dataclass with slots.

    A field's metadata may give its `name` in JSON and the `limit` of its number. Such a field is
    its container's: it must be there when it is read, and `content` leaves it to the container.
    """

    def __init__(self, shape: type[Shape]) -> None:
        hints = get_type_hints(shape)
        self._shape = shape
        known = [_known(shape, f, hints[f.name]) for f in fields(shape)]  # type: ignore[arg-type]  # a dataclass
        self._known = tuple((k.name, k.number, k.limit, k.put, k) for k in known)
        self._written = tuple(
            (f.name, "left_out" in f.metadata)
            for f in fields(shape)  # type: ignore[arg-type]
            if "name" not in f.metadata
        )

    def read(self, content: Mapping[str, Any]) -> Shape:
        """The object that this JSON object describes; MisfitError if it describes none.

        Most fields are numbers and fit, so these are checked here: a run has a million steps.
        """
        found = object.__new__(self._shape)  # its own __init__ would cost as much as the JSON
        get = content.get
        for name, number, limit, put, known in self._known:
            value = get(name, _ABSENT)
            if type(value) is number and -limit < value < limit:
                put(found, value)
            else:
                put(found, known.value_of(value))
        return found

    def content(self, value: Shape) -> dict[str, Any]:
        """What JSON says of the object."""
        pairs = [(name, getattr(value, name), may_lack) for name, may_lack in self._written]
        return {n: _plain(v) for n, v, may_lack in pairs if not (may_lack and v is None)}


_forms: dict[Any, Form[Any]] = {}


def form_of(shape: type[Shape]) -> Form[Shape]:
    """The form of a dataclass, made when it is first needed."""
    if shape not in _forms:
        _forms[shape] = Form(shape)
    return _forms[shape]


def _known(shape: type, known: Field[Any], hint: Any) -> _Known:
    name, limit = known.metadata.get("name", known.name), known.metadata.get("limit")
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not type(None)]
    number = kinds[0] if get_origin(hint) in (None, UnionType) and kinds[0] in _LIMITS else None
    default = _ABSENT if known.default is MISSING or "name" in known.metadata else known.default
    return _Known(
        name=name,
        put=getattr(shape, known.name).__set__,
        check=_bounded(number, limit) if number and limit else _check(hint),
        default=default,
        number=number,
        limit=limit or _LIMITS.get(number, 0),
    )


def _check(hint: Any) -> Check:
    """A function that returns a value of this type as it is kept, or raises MisfitError."""
    inner = get_args(hint)
    if hint in _LIMITS:
        return _bounded(hint, _LIMITS[hint])
    if get_origin(hint) is UnionType:
        one = _check(inner[0])
        return lambda value: None if value is None else one(value)
    if get_origin(hint) is tuple:
        one = _check(inner[0])
        return lambda value: tuple(one(v) for v in _a(list, value))
    if get_origin(hint) is dict:
        return _numbers
    if isinstance(hint, type) and is_dataclass(hint):
        return lambda value: form_of(hint).read(_a(dict, value))
    if hint in (str, bool):
        return lambda value: _a(hint, value)
    raise TypeError(f"no record can hold {hint}")


_LIMITS: dict[Any, float] = {int: WHOLE_LIMIT, float: NUMBER_LIMIT}


def _bounded(number: type, limit: float) -> Check:
    kinds = (int,) if number is int else (int, float)

    def check(value: Any) -> Any:
        if type(value) in kinds and -limit < value < limit:
            return value
        raise MisfitError

    return check


_number = _bounded(float, NUMBER_LIMIT)


def _numbers(value: Any) -> Any:
    """Of a JSON object all of whose values are numbers."""
    for number in _a(dict, value).values():
        if type(number) is not float or not -NUMBER_LIMIT < number < NUMBER_LIMIT:
            _number(number)
    return value


def _a(kind: type, value: Any) -> Any:
    if type(value) is kind:
        return value
    raise MisfitError


def _plain(value: Any) -> Any:
    """As json takes it: tuples are lists to it, dataclasses it does not know."""
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return form_of(type(value)).content(value) if is_dataclass(value) else value
