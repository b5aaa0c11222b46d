"""Names of languages."""

from __future__ import annotations

import pytest
from faster_whisper.tokenizer import _LANGUAGE_CODES

from protos.stt.v1.languages import NAMES, english_name, language_code


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (("en", "EN", "en-US", "en_us", "English", " english ", "eng", "en-US-x-lvariant"), "en"),
        (("zh", "zh-CN", "zh_Hant_TW", "zh-Hans-CN", "Chinese", "mandarin", "cmn-Hans"), "zh"),
        (("pt_BR", "pt-PT", "pt_BR.UTF-8", "Portuguese", "por"), "pt"),
        (("de_DE@euro", "GERMAN", "ger", "deu"), "de"),
        (("he", "iw", "he-IL", "iw_IL", "Hebrew"), "he"),
        (("no", "nb", "nb-NO", "Norwegian"), "no"),
        (("nn", "nn_NO", "Nynorsk", "Norwegian Nynorsk"), "nn"),
        (("jw", "jv", "jv-ID", "Javanese"), "jw"),
        (("tl", "fil-PH", "Filipino"), "tl"),
        (("haw", "haw-US", "Hawaiian"), "haw"),
        (("yue", "yue-HK", "zh-yue", "zh-yue-HK", "Cantonese"), "yue"),
        (("ht", "Haitian Creole", "haitian-creole", "haitian_creole"), "ht"),
        (("in", "id-ID"), "id"),
    ],
)
def test_common_names_give_whispers_code(names: tuple[str, ...], code: str) -> None:
    assert [language_code(name) for name in names] == [code] * len(names)


@pytest.mark.parametrize(
    "name", ["", "auto", "xx", "xx-US", "klingon", "en-", "-US", "en US", "english-US", "en,de", "e"]
)
def test_unknown_names_give_none(name: str) -> None:
    assert language_code(name) is None


def test_every_language_of_whisper_has_a_name() -> None:
    assert set(NAMES) == set(_LANGUAGE_CODES)
    for code in NAMES:
        assert language_code(code) == language_code(english_name(code).upper()) == code


def test_an_unknown_code_is_its_own_name() -> None:
    assert [english_name(code) for code in ("de", "yue", "xx", "")] == ["German", "Cantonese", "xx", ""]
