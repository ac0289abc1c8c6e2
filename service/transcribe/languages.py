"""The languages that Whisper knows, by code and by the name that OpenAI's verbose_json reports."""

import re
import unicodedata

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
    "farsi": "fa",
    "filipino": "tl",
    "slovene": "sl",
    "kiswahili": "sw",
    "american english": "en",
    "british english": "en",
    "brazilian portuguese": "pt",
    "simplified chinese": "zh",
    "traditional chinese": "zh",
    "norwegian bokmal": "no",
    "norwegian nynorsk": "nn",
}
_OWN_NAMES = """
zh:中文,汉语,漢語,普通话,国语,國語,简体中文,繁體中文 de:deutsch es:español,castellano
ru:русский,русский_язык ko:한국어 fr:français ja:日本語 pt:português tr:türkçe pl:polski,język_polski
ca:català,valencià nl:nederlands,vlaams ar:العربية,عربي sv:svenska it:italiano id:bahasa_indonesia
hi:हिन्दी,हिंदी fi:suomi vi:tiếng_việt he:עברית uk:українська,українська_мова el:ελληνικά
ms:bahasa_melayu cs:čeština,český ro:română da:dansk hu:magyar ta:தமிழ் no:norsk,bokmål,norsk_bokmål
nn:norsk_nynorsk th:ไทย,ภาษาไทย ur:اردو hr:hrvatski bg:български lt:lietuvių la:latina mi:te_reo_māori
ml:മലയാളം cy:cymraeg sk:slovenčina te:తెలుగు fa:فارسی lv:latviešu bn:বাংলা sr:српски,srpski
az:azərbaycanca sl:slovenščina kn:ಕನ್ನಡ et:eesti mk:македонски br:brezhoneg eu:euskara is:íslenska
hy:հայերեն ne:नेपाली mn:монгол bs:bosanski kk:қазақша,қазақ_тілі sq:shqip gl:galego mr:मराठी pa:ਪੰਜਾਬੀ
si:සිංහල km:ខ្មែរ so:soomaali oc:occitan ka:ქართული be:беларуская tg:тоҷикӣ sd:سنڌي gu:ગુજરાતી am:አማርኛ
yi:ייִדיש lo:ລາວ uz:oʻzbekcha,o'zbekcha fo:føroyskt ht:kreyòl_ayisyen ps:پښتو tk:türkmençe mt:malti
sa:संस्कृतम् lb:lëtzebuergesch my:မြန်မာ bo:བོད་ཡིག as:অসমীয়া tt:татарча haw:ʻōlelo_hawaiʻi ln:lingála
ba:башҡортса jw:basa_jawa su:basa_sunda yue:粵語,粤语,廣東話,广东话
"""
# ISO 639-2 (both kinds) and 639-3, the latter also for what is mostly meant by a macrolanguage's name
_CODES = """
en:eng zh:zho,chi,cmn de:deu,ger es:spa ru:rus ko:kor fr:fra,fre ja:jpn pt:por tr:tur pl:pol ca:cat nl:nld,dut
ar:ara,arb sv:swe it:ita id:ind,in hi:hin fi:fin vi:vie he:heb,iw uk:ukr el:ell,gre ms:msa,may,zsm cs:ces,cze
ro:ron,rum,mo,mol da:dan hu:hun ta:tam no:nor,nob,nb th:tha ur:urd hr:hrv bg:bul lt:lit la:lat mi:mri,mao ml:mal
cy:cym,wel sk:slk,slo te:tel fa:fas,per,pes,prs lv:lav,lvs bn:ben sr:srp az:aze,azj sl:slv kn:kan et:est,ekk
mk:mkd,mac br:bre eu:eus,baq is:isl,ice hy:hye,arm ne:nep,npi mn:mon,khk bs:bos kk:kaz sq:sqi,alb,als sw:swa,swh
gl:glg mr:mar pa:pan si:sin km:khm sn:sna yo:yor so:som af:afr oc:oci ka:kat,geo be:bel tg:tgk sd:snd gu:guj am:amh
yi:yid,ydd,ji lo:lao uz:uzb,uzn fo:fao ht:hat ps:pus,pbt tk:tuk nn:nno mt:mlt sa:san lb:ltz my:mya,bur bo:bod,tib
tl:tgl,fil mg:mlg,plt as:asm tt:tat ln:lin ha:hau ba:bak jw:jav,jv su:sun yue:zh-yue
"""
OTHER_CODES = {
    other: code for code, _, others in (entry.partition(":") for entry in _CODES.split()) for other in others.split(",")
}
LOCALE = re.compile(r"([a-z]{2,3})([-_][a-z0-9]{1,8})*")
LONGEST = 100  # characters that a name or a locale has
REGION = re.compile(r"\s*\([^()]*\)$")  # behind a name, as in `English (US)`


def _plain(text: str) -> str:
    """Without capitals, accents and doubled space: people leave them out of names."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return " ".join("".join(letter for letter in letters if not unicodedata.combining(letter)).split())


_BY_NAME = {name: code for code, name in LANGUAGES.items()} | OTHER_NAMES
_BY_NAME |= {
    _plain(name.replace("_", " ")): code
    for code, _, names in (entry.partition(":") for entry in _OWN_NAMES.split())
    for name in names.split(",")
}


def to_code(text: str) -> str | None:
    """The code for a code, an English name, a language's own name or a locale (`sv`, `swe`, `Swedish`, `Svenska`,
    `sv-SE`, `sv_SE.UTF-8`), or None if it is unknown."""
    wanted = _plain(re.split("[.@]", text)[0]) if len(text) <= LONGEST else ""
    if (name := REGION.sub("", wanted).replace("_", " ")) in _BY_NAME:
        return _BY_NAME[name]
    if not (match := LOCALE.fullmatch(wanted)):
        return None
    codes = (OTHER_CODES.get(code, code) for code in (wanted.replace("_", "-"), match[1]))
    return next((code for code in codes if code in LANGUAGES), None)


def name_of(code: str) -> str:
    """The English name, in lower case; the code itself if it is unknown."""
    return LANGUAGES.get(code, code)
