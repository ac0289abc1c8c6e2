"""Languages by code, name and locale."""

import pytest
from transcribe.languages import LANGUAGES, OTHER_CODES, name_of, to_code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("sv", "sv"),
        ("SV", "sv"),
        (" Swedish ", "sv"),
        ("sv-SE", "sv"),
        ("sv_SE", "sv"),
        ("en-US", "en"),
        ("zh-Hans-CN", "zh"),
        ("yue", "yue"),
        ("zh-yue", "yue"),
        ("haitian creole", "ht"),
        ("Castilian", "es"),
        ("nb-NO", "no"),
        ("Svenska", "sv"),
        ("DEUTSCH", "de"),
        ("Français", "fr"),
        ("francais", "fr"),
        ("日本語", "ja"),
        ("Русский", "ru"),
        ("हिन्दी", "hi"),
        ("Español (España)", "es"),
        ("English (US)", "en"),
        ("norsk bokmål", "no"),
        ("Brazilian Portuguese", "pt"),
        ("de_AT@euro", "de"),
        ("en-US-x-private", "en"),
        ("(US)", None),
        ("haw", "haw"),
        ("xx", None),
        ("", None),
        ("klingon", None),
        ("sv;DROP", None),
        ("s", None),
        ("sv-" + "a" * 500, None),
    ],
)
def test_to_code(text: str, code: str | None) -> None:
    assert to_code(text) == code


def test_names_are_openais() -> None:
    assert len(LANGUAGES) == 100
    assert (name_of("sv"), name_of("en"), name_of("ht"), name_of("yue")) == (
        "swedish",
        "english",
        "haitian creole",
        "cantonese",
    )
    assert name_of("??") == "??"


def test_every_code_and_name_leads_back_to_itself() -> None:
    assert [code for code, name in LANGUAGES.items() if to_code(code) != code or to_code(name) != code] == []


def test_every_language_has_a_code_of_three_letters() -> None:
    reached = {code for other, code in OTHER_CODES.items() if len(other) == 3}
    assert set(LANGUAGES) - reached == {"haw", "yue"}  # which have no other
    assert [other for other, code in OTHER_CODES.items() if to_code(other) != code] == []
