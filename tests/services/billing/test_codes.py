"""The letters of codes: however somebody types one, it is the same code, and nothing else is."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as some

from kit.ids import new_id
from services.billing import codes
from services.billing.app import service
from services.billing.settings import Settings
from tests.harness import Run

KEY = "a key of codes with thirty-two letters or more"
CODES = some.text(codes.ALPHABET, min_size=codes.LETTERS, max_size=codes.LETTERS)
SEPARATORS = some.text(
    "  -–—_\t\n\N{NO-BREAK SPACE}\N{IDEOGRAPHIC SPACE}\N{ZERO WIDTH SPACE}\N{MINUS SIGN}－", max_size=3
)
LOOK_ALIKES = {"0": "0Oo", "1": "1IiLl", "V": "VvUu"}


@given(code=CODES, typing=some.data())
def test_a_code_is_known_however_it_is_typed(code: str, typing: some.DataObject) -> None:
    typed = ""
    for letter in code:
        written = typing.draw(some.sampled_from(LOOK_ALIKES.get(letter, letter + letter.lower())))
        wide = typing.draw(some.booleans())
        typed += chr(ord(written) + 0xFEE0) if wide else written
        typed += typing.draw(SEPARATORS)
    assert codes.normalised(typed) == code
    assert codes.normalised(codes.grouped(code)) == code
    assert codes.normalised(code) == code


@given(some.text(max_size=40))
def test_anything_else_is_no_code_and_no_trouble(typed: str) -> None:
    code = codes.normalised(typed)
    assert code is None or (len(code) == codes.LETTERS and set(code) <= set(codes.ALPHABET))
    assert code is None or codes.normalised(code) == code


@pytest.mark.parametrize(
    "typed", ["", " ", "7K3M-Q9TX-04HB-WZ5", "7K3M-Q9TX-04HB-WZ5RX", "7K3M-Q9TX-04HB-WZ5!", "七" * 16]
)
def test_what_is_too_short_too_long_or_strange_is_no_code(typed: str) -> None:
    assert codes.normalised(typed) is None


def test_codes_hold_eighty_bits_without_look_alikes_and_differ() -> None:
    assert len(codes.ALPHABET) == len(set(codes.ALPHABET)) == 32
    assert not set("ILOU") & set(codes.ALPHABET)
    seed = bytes(codes.SEED_BYTES)
    made = codes.batch_codes(KEY, seed, 5000)
    assert len(set(made)) == 5000
    assert {len(code) for code in made} == {16}
    # Every letter at every place, as often as chance has it: 156 times on average.
    for place in range(16):
        counts = [sum(code[place] == letter for code in made) for letter in codes.ALPHABET]
        assert min(counts) > 90
        assert max(counts) < 230
    assert made[:10] == codes.batch_codes(KEY, seed, 10)
    assert not set(made) & set(codes.batch_codes(KEY, b"1" * codes.SEED_BYTES, 5000))
    assert not set(made) & set(codes.batch_codes("another key", seed, 5000))


def test_a_gift_s_code_is_the_same_at_every_reading_and_another_s_with_another_key() -> None:
    order_id = new_id()
    code = codes.gift_code(KEY, order_id)
    assert code == codes.gift_code(KEY, order_id) == codes.normalised(codes.grouped(code))
    assert code != codes.gift_code(KEY, new_id())
    assert code != codes.gift_code("another key", order_id)
    assert codes.digest(KEY, code) != codes.digest("another key", code)
    assert unicodedata.normalize("NFKC", codes.grouped(code)) == codes.grouped(code)


async def test_production_does_not_start_without_a_key_of_codes(run: Run) -> None:
    for key in ("", "too short"):
        with pytest.raises(ValueError, match="BILLING_CODE_KEY needs 32"):
            async with run(service, env="production", code_key=key):
                pass
    assert Settings(env="production", code_key=KEY).codes_key == KEY
    assert Settings(env="sandbox", code_key="").codes_key
