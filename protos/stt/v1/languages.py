"""The languages of Whisper: codes, English names, and other names that callers use.

Whisper's codes are ISO 639-1, with a few exceptions such as `jw` (Javanese) and `yue` (Cantonese). Knows no gRPC and no
protobuf.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

AUTOMATIC = "auto"
"""Names no language: it is detected."""

_TABLE = """
af Afrikaans            | afr
am Amharic              | amh
ar Arabic               | ara
as Assamese             | asm
az Azerbaijani          | aze
ba Bashkir              | bak
be Belarusian           | bel
bg Bulgarian            | bul
bn Bengali              | ben, Bangla
bo Tibetan              | bod, tib
br Breton               | bre
bs Bosnian              | bos
ca Catalan              | cat, Valencian
cs Czech                | ces, cze
cy Welsh                | cym, wel
da Danish               | dan
de German               | deu, ger
el Greek                | ell, gre
en English              | eng
es Spanish              | spa, Castilian
et Estonian             | est
eu Basque               | eus, baq
fa Persian              | fas, per, Farsi
fi Finnish              | fin
fo Faroese              | fao
fr French               | fra, fre
gl Galician             | glg
gu Gujarati             | guj
ha Hausa                | hau
haw Hawaiian            |
he Hebrew               | heb, iw
hi Hindi                | hin
hr Croatian             | hrv
ht Haitian Creole       | hat, Haitian
hu Hungarian            | hun
hy Armenian             | hye, arm
id Indonesian           | ind, in
is Icelandic            | isl, ice
it Italian              | ita
ja Japanese             | jpn
jw Javanese             | jav, jv
ka Georgian             | kat, geo
kk Kazakh               | kaz
km Khmer                | khm
kn Kannada              | kan
ko Korean               | kor
la Latin                | lat
lb Luxembourgish        | ltz, Letzeburgesch
ln Lingala              | lin
lo Lao                  | lao
lt Lithuanian           | lit
lv Latvian              | lav
mg Malagasy             | mlg
mi Maori                | mri, mao
mk Macedonian           | mkd, mac
ml Malayalam            | mal
mn Mongolian            | mon
mr Marathi              | mar
ms Malay                | msa, may
mt Maltese              | mlt
my Myanmar              | mya, bur, Burmese
ne Nepali               | nep
nl Dutch                | nld, dut, Flemish
nn Nynorsk              | nno, Norwegian Nynorsk
no Norwegian            | nor, nb, nob, Bokmal, Bokmål, Norwegian Bokmal, Norwegian Bokmål
oc Occitan              | oci
pa Punjabi              | pan, Panjabi
pl Polish               | pol
ps Pashto               | pus, Pushto
pt Portuguese           | por
ro Romanian             | ron, rum, mo, Moldavian, Moldovan
ru Russian              | rus
sa Sanskrit             | san
sd Sindhi               | snd
si Sinhala              | sin, Sinhalese
sk Slovak               | slk, slo
sl Slovenian            | slv, Slovene
sn Shona                | sna
so Somali               | som
sq Albanian             | sqi, alb
sr Serbian              | srp
su Sundanese            | sun
sv Swedish              | swe
sw Swahili              | swa
ta Tamil                | tam
te Telugu               | tel
tg Tajik                | tgk
th Thai                 | tha
tk Turkmen              | tuk
tl Tagalog              | tgl, fil, Filipino
tr Turkish              | tur
tt Tatar                | tat
uk Ukrainian            | ukr
ur Urdu                 | urd
uz Uzbek                | uzb
vi Vietnamese           | vie
yi Yiddish              | yid, ji
yo Yoruba               | yor
yue Cantonese           |
zh Chinese              | zho, chi, cmn, Mandarin, Mandarin Chinese
"""
"""Whisper's code and English name of each language, then its other names: ISO 639-2 and 639-3 codes, codes that
were replaced, and the aliases of openai/whisper."""


def _rows() -> dict[str, tuple[str, ...]]:
    rows = {}
    for line in _TABLE.strip().splitlines():
        known, _, others = line.partition("|")
        code, name = known.split(maxsplit=1)
        rows[code] = (name.strip(), *filter(None, (other.strip() for other in others.split(","))))
    return rows


NAMES: Mapping[str, tuple[str, ...]] = _rows()
"""By Whisper's code: the English name, then the other names."""


def english_name(code: str) -> str:
    """English name of one of Whisper's codes, such as `German`; the code itself if it is unknown."""
    return NAMES[code][0] if code in NAMES else code


_LOCALE = re.compile(r"(?:zh[-_](?=yue\b))?([a-z]{2,3})((?:[-_][a-z0-9]{1,8})*)([.@].*)?")
"""A BCP 47 tag or a POSIX locale, in lower case; the language is the first group. `zh-yue` is an older tag of `yue`."""


def language_code(name: str) -> str | None:
    """Whisper's code for a language by any common name, in any case; None if the name is unknown.

    Args:
        name: a code, a locale of it (`pt_BR`, `zh-Hans-CN`) or an English name. Not `auto`, which names no language.
    """
    plain = " ".join(re.split(r"[\s_-]+", name.strip().casefold()))
    locale = _LOCALE.fullmatch(name.strip().lower())
    return _aliases().get(plain) or (_aliases().get(locale[1]) if locale else None)


@lru_cache(maxsize=1)
def _aliases() -> Mapping[str, str]:
    return {alias.casefold(): code for code, names in NAMES.items() for alias in (code, *names)}
