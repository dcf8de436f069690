"""Personal data and keys in texts: found by their form and their check digits, told and masked.

Kinds stand in one list, which is all that adds one. Forms are narrow: a number whose check digit is
wrong, a date, a price, an ISBN or a hash is none of these. What is found is counted and never
shown. Hostile text takes linear time: repeats are bounded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from profiles import redact

Span = tuple[int, int]
"""First character and the one after the last."""
_LEAST_DIGITS: Final = 8
"""No number of these kinds has fewer."""
_NO_DIGITS: Final = bytes(byte for byte in range(256) if not chr(byte).isdecimal())
_EIGHT_DIGITS: Final = re.compile(r"[0-9](?:[ ().\-]{0,2}[0-9]){7}")
_EIGHT_SIGNS: Final = re.compile(rb"[0-9](?:[().\-]{0,2}[0-9]){7}")
_PLAIN: Final = b"abcdefghijklmnopqrstuvwxyz \t\n\r"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of data."""

    name: str
    """As a recipe's `data.mask` has it."""
    title: str
    """In the plural, for people."""
    find: Callable[[str], Iterator[Span]]
    may_hold: Callable[[str, bytes], bool] | None = None
    """Whether it is worth looking, told the text and its signs; None for what has 8 digits."""
    is_usual: bool = True
    """Looked for where no kinds are named."""

    @property
    def mark(self) -> str:
        """What is written in its place."""
        return f"<{self.name.upper()}>"


# --- Check digits -------------------------------------------------------------------------------


def _digits(text: str) -> list[int]:
    return [int(char) for char in text if char.isdigit()]


def _luhn(digits: Sequence[int]) -> bool:
    """ISO/IEC 7812-1, annex B."""
    doubled = [sum(divmod(2 * one, 10)) for one in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_barcode(digits: Sequence[int]) -> bool:
    """EAN-13, of which German ones begin as cards of 13 digits do."""
    return len(digits) == 13 and (sum(digits[::2]) + 3 * sum(digits[1::2])) % 10 == 0


_CN_WEIGHTS: Final = tuple(2**power % 11 for power in range(17, 0, -1))


def _is_cn_number(text: str) -> bool:
    """GB 11643-1999: ISO 7064 MOD 11-2 over 17 digits."""
    total = sum(w * int(char) for w, char in zip(_CN_WEIGHTS, text, strict=False))
    return "10X98765432"[total % 11] == text[17].upper()


def _is_iban(text: str) -> bool:
    """ISO 13616: MOD 97-10 with the first four characters put last."""
    moved = text[4:] + text[:4]
    return int("".join(str(int(char, 36)) for char in moved)) % 97 == 1


# --- Numbers ------------------------------------------------------------------------------------

_ALONE: Final = r"(?<![0-9A-Za-z_+])(?<![0-9][.\-])"
_ENDED: Final = r"(?![0-9A-Za-z_]|[.\-][0-9])"
_ID_CARD: Final = re.compile(
    _ALONE + r"[1-9][0-9]{5}(?:18|19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])"
    r"[0-9]{3}[0-9Xx]" + _ENDED
)
_CARD: Final = re.compile(
    _ALONE + r"(?:[0-9]{13,19}|[0-9]{4}([ \-])[0-9]{4}\1[0-9]{4}\1[0-9]{1,4}(?:\1[0-9]{1,3})?"
    r"|3[0-9]{3}([ \-])[0-9]{6}\2[0-9]{4,5})" + _ENDED
)
_ISSUERS: Final = re.compile(
    r"4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})"  # Visa
    r"|(?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"
    r"|3[47][0-9]{13}"  # American Express; above, Mastercard
    r"|(?:6011|64[4-9][0-9]|65[0-9]{2})[0-9]{12}"  # Discover
    r"|35(?:2[89]|[3-8][0-9])[0-9]{12}"  # JCB
    r"|3(?:0[0-5]|[68][0-9])[0-9]{11}"  # Diners
    r"|62[0-9]{14,17}"  # UnionPay
)
_SSN: Final = re.compile(_ALONE + r"(?!000|666|9)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}" + _ENDED)
_PHONE: Final = re.compile(
    r"(?<![0-9A-Za-z_+])\+[1-9](?:[ .\-]?(?:[0-9]{1,4}+|\([0-9]{1,4}\))){2,7}" + _ENDED
    + "|" + _ALONE + r"1(?:3[0-9]|4[5-9]|5[0-35-9]|6[2567]|7[0-8]|8[0-9]|9[0-35-9])"
    r"(?:[0-9]{8}|([ \-])[0-9]{4}\1[0-9]{4})" + _ENDED
    + "|" + _ALONE + r"(?:1[ .\-])?(?:\([2-9][0-9]{2}\) ?[2-9][0-9]{2}[ .\-]"
    r"|[2-9][0-9]{2}([.\-])[2-9][0-9]{2}\2)[0-9]{4}" + _ENDED
)  # fmt: skip
"""With a country's code; Chinese mobile numbers; numbers as North America writes them."""
_IBAN: Final = re.compile(r"(?<![0-9A-Za-z])(?=([A-Z]{2}[0-9]{2}(?: ?[0-9A-Z]){11,30}))")
"""Looks ahead, so that what follows one, and may be one too, is looked at again."""
_IBAN_LENGTHS: Final = {
    "AE": 23, "AT": 20, "BE": 16, "BG": 22, "BR": 29, "CH": 21, "CY": 28, "CZ": 24, "DE": 22,
    "DK": 18, "EE": 20, "ES": 24, "FI": 18, "FR": 27, "GB": 22, "GR": 27, "HR": 21, "HU": 28,
    "IE": 22, "IL": 23, "IS": 26, "IT": 27, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MT": 31,
    "NL": 18, "NO": 15, "PL": 28, "PT": 25, "RO": 24, "RS": 22, "SA": 24, "SE": 24, "SI": 19,
    "SK": 24, "TR": 26, "UA": 29,
}  # fmt: skip
"""Characters, by country (the SWIFT registry's commonest)."""
_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IP: Final = re.compile(
    rf"(?<![0-9A-Za-z_.\-])(?:{_OCTET}\.){{3}}{_OCTET}(?![0-9A-Za-z_]|[.\-][0-9])"
)


def _id_cards(text: str) -> Iterator[Span]:
    return (one.span() for one in _ID_CARD.finditer(text) if _is_cn_number(one[0]))


def _cards(text: str) -> Iterator[Span]:
    for found in _CARD.finditer(text):
        digits = _digits(found[0])
        is_issued = _ISSUERS.fullmatch("".join(map(str, digits)))
        if is_issued and _luhn(digits) and not _is_barcode(digits):
            yield found.span()


def _ssns(text: str) -> Iterator[Span]:
    return (one.span() for one in _SSN.finditer(text))


def _phones(text: str) -> Iterator[Span]:
    for found in _PHONE.finditer(text):
        number = found[0]
        is_grouped = not number[1:].isdigit()
        least = 8 if is_grouped else 10  # +10000000 is a number
        if not number.startswith("+") or least <= len(_digits(number)) <= 15:
            yield found.span()


def _ibans(text: str) -> Iterator[Span]:
    for found in _IBAN.finditer(text):
        number, start = found[1], found.start()
        length = _IBAN_LENGTHS.get(number[:2], 0)
        places = [i for i, char in enumerate(number) if char != " "][:length]
        if not length or len(places) < length:
            continue
        end = start + places[-1] + 1
        is_ended = not text[end : end + 1].isalnum()
        if is_ended and _is_iban("".join(number[i] for i in places)):
            yield start, end


def _ips(text: str) -> Iterator[Span]:
    return (one.span() for one in _IP.finditer(text))


# --- Words --------------------------------------------------------------------------------------

_EMAIL: Final = re.compile(
    r"(?<![A-Za-z0-9._%+\-])[A-Za-z0-9_%+][A-Za-z0-9._%+\-]{0,63}@"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?\.){1,6}([A-Za-z]{2,24})(?![A-Za-z0-9\-])"
)
_NO_DOMAINS: Final = frozenset(
    ("png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "ts", "json", "html", "py", "sh")
)
"""What follows an @ in names of files, as in icon@2x.png."""


def _emails(text: str) -> Iterator[Span]:
    return (one.span() for one in _EMAIL.finditer(text) if one[1].lower() not in _NO_DOMAINS)


KINDS: Final = (
    Kind(
        name="key",
        title="keys or tokens",
        find=redact.secrets,
        may_hold=redact.may_hold_secret,
    ),
    Kind(
        name="email",
        title="e-mail addresses",
        find=_emails,
        may_hold=lambda _, signs: b"@" in signs,
    ),
    Kind(name="iban", title="bank accounts (IBAN)", find=_ibans),
    Kind(name="id_card", title="Chinese identity cards", find=_id_cards),
    Kind(name="bank_card", title="bank cards", find=_cards),
    Kind(name="ssn", title="US social security numbers", find=_ssns),
    Kind(name="phone", title="phone numbers", find=_phones),
    Kind(
        name="ip",
        title="IP addresses",
        find=_ips,
        may_hold=lambda _, signs: signs.count(b".") > 2,
        is_usual=False,
    ),
)
"""Where two find the same characters, the earlier one has them."""
USUAL: Final = tuple(kind.name for kind in KINDS if kind.is_usual)
MARKS: Final = frozenset(kind.mark for kind in KINDS)
BY_NAME: Final = {kind.name: kind for kind in KINDS}


def names() -> tuple[str, ...]:
    """All kinds, as a recipe names them."""
    return tuple(BY_NAME)


def signs_of(data: bytes) -> bytes:
    """A text in UTF-8 without small letters and white space: short, and dear searches are spared.

    What has none of the signs of a kind holds nothing of the kind.
    """
    return data.translate(None, _PLAIN)


def kinds_in(text: str, wanted: tuple[str, ...] = USUAL, *, signs: bytes | None = None) -> set[str]:
    """The kinds of which the text holds any; `signs`: its `signs_of`, if they are known."""
    return {kind for _, _, kind in _found(text, wanted, signs)}


def masked(text: str, wanted: tuple[str, ...]) -> tuple[str, Counter[str]]:
    """The text with marks in their place, and how many of each kind."""
    parts, end, counts = [], 0, Counter[str]()
    for first, last, kind in _found(text, wanted):
        parts += [text[end:first], BY_NAME[kind].mark]
        end = last
        counts[kind] += 1
    return "".join([*parts, text[end:]]) if parts else text, counts


def _has_digits(text: str, signs: bytes) -> bool:
    """Eight digits near each other; most texts have too few, which is seen ten times sooner."""
    if len(signs.translate(None, _NO_DIGITS)) < _LEAST_DIGITS or not _EIGHT_SIGNS.search(signs):
        return False
    return _EIGHT_DIGITS.search(text) is not None


Ranked = tuple[int, Kind]


@cache
def _kinds(wanted: tuple[str, ...]) -> tuple[tuple[Ranked, ...], tuple[Ranked, ...]]:
    """With their rank: those that have signs of their own, and those that have eight digits."""
    ranked = [(rank, kind) for rank, kind in enumerate(KINDS) if kind.name in wanted]
    return (
        tuple([one for one in ranked if one[1].may_hold]),
        tuple([one for one in ranked if not one[1].may_hold]),
    )


def _found(
    text: str, wanted: tuple[str, ...], signs: bytes | None = None
) -> list[tuple[int, int, str]]:
    """First character, the one after the last, and the kind, in order, none over another."""
    if signs is None:
        signs = signs_of(text.encode(errors="replace"))
    with_signs, with_digits = _kinds(wanted)
    likely = [one for one in with_signs if one[1].may_hold and one[1].may_hold(text, signs)]
    if with_digits and _has_digits(text, signs):
        likely += with_digits
    if not likely:
        return []
    spans = sorted((first, rank, last) for rank, kind in likely for first, last in kind.find(text))
    found: list[tuple[int, int, int]] = []
    for first, rank, last in spans:
        if found and first < found[-1][1]:
            if rank >= found[-1][2]:
                continue
            found.pop()
        found.append((first, last, rank))
    return [(first, last, KINDS[rank].name) for first, last, rank in found]
