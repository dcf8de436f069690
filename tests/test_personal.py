"""Personal data and keys: what is found, what is not, and what is written in its place."""

from __future__ import annotations

import random
import string

import pytest

from profiles import personal

CN = "11010519491231002X"
PEM = (
    "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIEow+/IBAAK\nCAQEA7==\n"
    "-----END RSA PRIVATE KEY-----"
)
TRUE = {
    "email": (
        "jane.doe+spam@mail.example.co.uk",
        "x@y.io",
        "first_last@sub-domain.museum",
    ),
    "phone": (
        "+49 30 901820",
        "+8613812345678",
        "+1 (415) 555-2671",
        "+44 (0) 20 7946 0958",
        "13812345678",
        "138-1234-5678",
        "(415) 555-2671",
        "415-555-2671",
        "415.555.2671",
        "1-415-555-2671",
    ),
    "id_card": (CN, "440524188001010014", "11010519491231002x"),
    "bank_card": (
        "4111111111111111",
        "4111 1111 1111 1111",
        "5555-5555-5555-4444",
        "378282246310005",
        "3782 822463 10005",
        "6011111111111117",
        "3530111333300000",
        "30569309025904",
        "6222021234567890128",
        "4222222222222",
    ),
    "ssn": ("123-45-6789", "899-99-9999"),
    "iban": (
        "DE89370400440532013000",
        "DE89 3704 0044 0532 0130 00",
        "GB29 NWBK 6016 1331 9268 19",
        "NL91ABNA0417164300",
        "FR14 2004 1010 0505 0001 3M02 606",
        "NO9386011117947",
    ),
    "key": (
        "sk-proj-aB3dE6gH9jK2mN5pQ8sT",
        "hf_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789"[:37],
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
        PEM,
    ),
    "ip": ("192.168.0.1", "8.8.8.8"),
}
FALSE = {
    "email": ("me @ home.com", "a@b", "icon@2x.png", "@property", "x = a @ b.T", "user@localhost"),
    "phone": (
        "12812345678",  # no such prefix
        "1381234567",
        "138123456789",
        "0.13812345678",
        "+1000000",
        "C++11 2014",
        "115-555-2671",
        "415-155-2671",
        "2024-01-15 10:30:00",
        "300 400 5000",
        "a+12345678901",
    ),
    "id_card": (
        "110105194912310021",  # its check digit is X
        "440524188001010015",
        "110105194913310027",  # month 13
        "1101051949123100212",
        "A11010519491231002X",
    ),
    "bank_card": (
        "4111111111111112",
        "4111 1111 1111 1112",
        "4111 1111-1111 1111",
        "378282246310006",
        "9999999999999995",  # sound, of no issuer
        "1700000000000000",
        "0.4111111111111111",
        "9780306406157",  # ISBN-13
        "978-3-16-148410-0",
        "4006381333931",  # EAN-13
        "de4111111111111111ad",
    ),
    "ssn": ("000-45-6789", "666-45-6789", "900-45-6789", "123-00-6789", "123-45-0000", "1-23-4567"),
    "iban": (
        "DE89370400440532013001",
        "GB29 NWBK 6016 1331 9268 18",
        "XX89370400440532013000",
        "DE8937040044053201300",
        "AB12 CDEF",
    ),
    "key": (
        "sk-learn and scikit-learn-contrib",
        "hf_hub_download",
        "AKIA",
        "ghp_short",
        "eyJustAWord",
        "-----BEGIN CERTIFICATE-----",
    ),
    "ip": ("1.2.3", "256.1.1.1", "1.2.3.4.5", "v1.2.3.4"),
}
ORDINARY = (
    "On 2024-01-15 at 10:30:00.123456 the price rose by 1,234,567.89 to $12 345 678.",
    "ISBN 978-3-16-148410-0, ISBN 0-306-40615-2, DOI 10.1000/182, arXiv:2106.09685",
    "Order no. 20240115123456, invoice 2024-000123-45, tracking 1Z999AA10123456784",
    "commit 9fceb02d0ae598e95dc970b74767f19372d61af8, sha 4e07408562bedb8b60ce05c1decfe3ad",
    "550e8400-e29b-41d4-a716-446655440000; 0x7ffd41d28000; 3.14159265358979323846",
    "f(x) = 0.1234567891234 + 1e-10; range(1000000000, 2000000000); 1700000000 1700000000000",
    "版本 1.2.3.4 日期 2024年01月15日 金额 1234567.89 元 订单号 20240115000123456",
    "for i in range(10): print(i * 3)  # @decorator, a @ b, icon@2x.png",
    "lat 52.520008, lon 13.404954; 1920x1080; 2001:0db8:85a3::8a2e:0370:7334",
)
EVERY = personal.names()


def cases(table):
    return [(kind, text) for kind, texts in table.items() for text in texts]


def test_every_kind_has_examples_of_both_sorts():
    """So none is added that nobody has tried."""
    assert set(TRUE) == set(FALSE) == set(EVERY)
    assert all(mark == f"<{kind.upper()}>" for kind, mark in zip(EVERY, MARKS, strict=True))
    assert personal.MARKS == frozenset(MARKS)


MARKS = [personal.BY_NAME[kind].mark for kind in EVERY]


@pytest.mark.parametrize(("kind", "text"), cases(TRUE))
@pytest.mark.parametrize(
    "around", ["{}", "Call {}.", "\u8054\u7cfb\uff1a{}\uff0c\u8c22\u8c22", "a\n{}\nb", "({}) x, y"]
)
def test_it_is_found_and_masked_whole(kind, text, around):
    """Whatever stands around it, and nothing else with it."""
    masked, counts = personal.masked(around.format(text), EVERY)

    assert masked == around.format(personal.BY_NAME[kind].mark)
    assert counts == {kind: 1}
    assert personal.kinds_in(around.format(text), EVERY) == {kind}


@pytest.mark.parametrize(("kind", "text"), [*cases(TRUE), *cases(FALSE)])
def test_what_would_be_found_is_looked_for(kind, text):
    """The quick look at a text never spares a search that finds something."""
    for around in ("{}", "Dear {},\n\twrite to {} \u0663\n"):
        whole = around.format(text, text)
        is_there = any(personal.BY_NAME[kind].find(whole))

        assert personal.kinds_in(whole, (kind,)) == ({kind} if is_there else set())


@pytest.mark.parametrize(("kind", "text"), cases(FALSE))
@pytest.mark.parametrize("around", ["{}", "Call {}.", "\u8054\u7cfb\uff1a{}\uff0c\u8c22\u8c22"])
def test_what_only_looks_like_it_is_left(kind, text, around):
    """A wrong check digit, a prefix that nobody has, another number."""
    assert kind not in personal.kinds_in(around.format(text), EVERY)


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_numbers_and_code_are_none(text):
    """Dates, prices, ISBNs, orders, hashes, coordinates."""
    assert personal.kinds_in(text) == set()
    assert personal.masked(text, personal.USUAL) == (text, {})


def test_addresses_of_machines_are_looked_for_only_if_named():
    """A version looks like one."""
    assert "ip" not in personal.USUAL
    assert personal.kinds_in("8.8.8.8") == set()


def test_only_the_kinds_that_are_named_are_masked():
    """The others stay as they are."""
    text = "x@y.io or 13812345678"

    assert personal.masked(text, ("email",)) == ("<EMAIL> or 13812345678", {"email": 1})
    assert personal.masked(text, personal.USUAL)[0] == "<EMAIL> or <PHONE>"


def test_several_of_one_kind_are_counted():
    """Each of them."""
    assert personal.masked("x@y.io, a@b.io; x@y.io", ("email",)) == (
        "<EMAIL>, <EMAIL>; <EMAIL>",
        {"email": 3},
    )


def test_a_password_in_an_address_is_a_key_and_no_mail():
    """The narrower kind has the characters."""
    assert personal.masked("git clone https://me:s3cret@host.org/x", EVERY) == (
        "git clone https://<KEY>@host.org/x",
        {"key": 1},
    )


def test_a_private_key_without_its_end_is_masked_as_far_as_it_goes():
    """A text may be cut there."""
    cut = PEM.rpartition("\n-----END")[0].replace("Proc-Type: 4,ENCRYPTED\n\n", "")

    assert personal.masked(f"x {cut}", ("key",))[0] == "x <KEY>"


def test_what_is_masked_holds_nothing_any_more():
    """So masking twice is masking once."""
    text = " ".join(one for _, one in cases(TRUE))

    masked, counts = personal.masked(text, EVERY)

    assert personal.kinds_in(masked, EVERY) == set()
    assert counts == {kind: len(texts) for kind, texts in TRUE.items()}


def test_numbers_at_random_are_seldom_taken_for_something():
    """One in hundreds of sixteen digits has an issuer and a sound check digit."""
    draw = random.Random(0)  # noqa: S311
    numbers = ["".join(draw.choices(string.digits, k=16)) for _ in range(20_000)]
    hashes = ["".join(draw.choices("0123456789abcdef", k=40)) for _ in range(20_000)]

    assert sum(bool(personal.kinds_in(one)) for one in numbers) < 20_000 * 0.03
    assert not any(personal.kinds_in(one) for one in hashes)


@pytest.mark.parametrize(
    "piece",
    [
        "a@",
        "a.",
        "+1 2",
        "1-",
        "DE89 ",
        "4111 ",
        "-----BEGIN PRIVATE KEY-----",
        "sk-a",
        "eyJa.",
        "1.",
    ],
)
def test_hostile_text_takes_no_longer_than_its_length(piece):
    """Twice the text, about twice the steps: it would not end otherwise."""
    personal.masked(piece * 100_000, EVERY)
