"""The languages that Whisper knows, by code and by the name that OpenAI's verbose_json reports."""

import re

_NAMES = """
en:english zh:chinese de:german es:spanish ru:russian ko:korean fr:french ja:japanese pt:portuguese tr:turkish
pl:polish ca:catalan nl:dutch ar:arabic sv:swedish it:italian id:indonesian hi:hindi fi:finnish vi:vietnamese
he:hebrew uk:ukrainian el:greek ms:malay cs:czech ro:romanian da:danish hu:hungarian ta:tamil no:norwegian th:thai
ur:urdu hr:croatian bg:bulgarian lt:lithuanian la:latin mi:maori ml:malayalam cy:welsh sk:slovak te:telugu
fa:persian lv:latvian bn:bengali sr:serbian az:azerbaijani sl:slovenian kn:kannada et:estonian mk:macedonian
br:breton eu:basque is:icelandic hy:armenian ne:nepali mn:mongolian bs:bosnian kk:kazakh sq:albanian sw:swahili
gl:galician mr:marathi pa:punjabi si:sinhala km:khmer sn:shona yo:yoruba so:somali af:afrikaans oc:occitan
ka:georgian be:belarusian tg:tajik sd:sindhi gu:gujarati am:amharic yi:yiddish lo:lao uz:uzbek fo:faroese
ht:haitian_creole ps:pashto tk:turkmen nn:nynorsk mt:maltese sa:sanskrit lb:luxembourgish my:myanmar bo:tibetan
tl:tagalog mg:malagasy as:assamese tt:tatar haw:hawaiian ln:lingala ha:hausa ba:bashkir jw:javanese su:sundanese
yue:cantonese
"""
LANGUAGES: dict[str, str] = {
    code: name.replace("_", " ") for code, _, name in (entry.partition(":") for entry in _NAMES.split())
}
OTHER_NAMES = {
    "burmese": "my",
    "valencian": "ca",
    "flemish": "nl",
    "haitian": "ht",
    "letzeburgesch": "lb",
    "pushto": "ps",
    "panjabi": "pa",
    "moldavian": "ro",
    "moldovan": "ro",
    "sinhalese": "si",
    "castilian": "es",
    "mandarin": "zh",
}
OTHER_CODES = {
    "nb": "no",
    "iw": "he",
    "in": "id",
    "ji": "yi",
    "fil": "tl",
    "cmn": "zh",
    "swe": "sv",
    "eng": "en",
    "zh-yue": "yue",
}
LOCALE = re.compile(r"([a-z]{2,3})([-_][a-z0-9]{2,8})*")
_BY_NAME = {**{name: code for code, name in LANGUAGES.items()}, **OTHER_NAMES}


def to_code(text: str) -> str | None:
    """The code for a code, an English name or a locale (`sv`, `Swedish`, `sv-SE`), or None if it is none of ours."""
    wanted = text.strip().casefold()
    if wanted in _BY_NAME:
        return _BY_NAME[wanted]
    if not (match := LOCALE.fullmatch(wanted)):
        return None
    codes = (OTHER_CODES.get(code, code) for code in (wanted.replace("_", "-"), match[1]))
    return next((code for code in codes if code in LANGUAGES), None)


def name_of(code: str) -> str:
    """The English name, in lower case; the code itself if it is unknown."""
    return LANGUAGES.get(code, code)
