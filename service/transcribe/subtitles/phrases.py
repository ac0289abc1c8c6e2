"""Where a reader is best served by a break: after punctuation, before a conjunction or a preposition."""

import unicodedata
from collections.abc import Sequence
from itertools import pairwise

from transcribe.subtitles.rules import PAUSE, Piece, same_turn

SENTENCE, CLAUSE, OPENER, PLAIN, TORN = 0.0, 2.0, 4.0, 8.0, 14.0  # what a break costs: less is better
BREATH = 300  # ms of silence that make a break better
BETTER = 3.0  # by so much
SENTENCE_ENDS = ".!?…。！？．؟۔।॥"
CLAUSE_ENDS = ",;:،؛，、；：–—"
CLOSERS = "\"'”’»)]}）」』】〉》"
ABBREVIATIONS = "mr mrs ms dr st prof jr sr hr fr nr kl ca bl ex dvs osv bzw usw etc vs"

# Words that open a phrase: a break before one is good, after one bad
OPENERS = {
    "en": "and or but nor so yet because although though while when where if unless until that which who whom whose "
    "about after against among as at before behind below between by down during for from in inside into near of off "
    "on onto out outside over since than through to toward towards under up upon with within without",
    "sv": "och eller men utan för så att som när då om medan eftersom fast innan sedan där vilken vilket vilka än "
    "av bakom bland efter framför från före förbi genom hos i in inför inom kring med mellan mot på till under ur "
    "ut utanför vid via åt över",
    "de": "und oder aber denn sondern dass weil obwohl wenn als während bevor nachdem damit ob wo wie der die das "
    "an auf aus bei bis durch für gegen hinter in mit nach neben ohne seit über um unter von vor zu zum zur zwischen",
    "fr": "et ou mais donc car ni que qui dont où quand lorsque si comme parce puisque "
    "à après avant avec chez contre dans de depuis derrière dès devant du en entre par pendant pour sans sous sur vers",
    "es": "y e o u pero sino porque que quien cual donde cuando si como aunque mientras "
    "a ante bajo con contra de del desde durante en entre hacia hasta para por según sin sobre tras",
    "no": "og eller men for så at som når da hvis om mens fordi selv der hvor enn av bak blant etter foran fra før "
    "gjennom hos i inn inne med mellom mot på til under ut ved via over",
    "da": "og eller men for så at som når da hvis om mens fordi selv der hvor end af bag blandt efter foran fra før "
    "gennem hos i ind inde med mellem mod på til under ud ved via over",
}
# Words that belong to the next one
LEANING = {
    "en": "a an the my your his her its our their this these those no every each very not is are was were be been "
    "have has had will would can could shall should may might must do does did i you he she it we they mr mrs ms dr",
    "sv": "en ett den det de min mitt mina din ditt dina sin sitt sina hans hennes deras vår vårt våra er ert era "
    "denna detta dessa inte mycket är var har hade ska skulle kan kunde vill ville måste jag du han hon vi ni",
    "de": "ein eine einen einem einer eines den dem des mein meine dein deine sein seine ihr ihre unser unsere kein "
    "keine nicht sehr ist sind war waren hat hatte haben wird würde kann ich du er sie es wir",
    "fr": "le la les un une des mon ma mes ton ta tes son sa ses notre nos votre vos leur leurs ce cette ces ne "
    "pas très est sont était a ont avait je tu il elle on nous vous ils elles",
    "es": "el la los las un una unos unas mi mis tu tus su sus nuestro nuestra este esta estos estas no muy es son "
    "era ha han había yo él ella nosotros ellos se me te le lo",
    "no": "en et ei den det de min mitt mine din ditt dine sin sitt sine hans hennes deres vår vårt våre denne dette "
    "disse ikke veldig er var har hadde skal skulle kan kunne vil ville må jeg du han hun vi",
    "da": "en et den det de min mit mine din dit dine sin sit sine hans hendes deres vores denne dette disse ikke "
    "meget er var har havde skal skulle kan kunne vil ville må jeg du han hun vi",
}
SAME = {"nn": "no"}


def break_costs(pieces: Sequence[Piece], language: str) -> list[float]:
    """For each piece what it costs to begin a line or a subtitle with it; of the end, too, which is free."""
    code = SAME.get(language, language)
    openers, leaning = frozenset(OPENERS.get(code, "").split()), frozenset(LEANING.get(code, "").split())
    costs, begins = [0.0], False
    for before, after in pairwise(pieces):
        cost = _after(before.text)
        if cost == PLAIN:
            number = before.text[-1:].isdigit() and after.text[:1].isdigit()
            if number or _plain(before.text) in openers | leaning:
                cost = TORN
            elif _plain(after.text) in openers:
                cost = OPENER
        if cost > CLAUSE and begins:
            cost = max(cost, TORN)  # the first word of a sentence is not left behind
        begins = cost == SENTENCE
        costs.append(cost - BETTER if after.start - before.end >= BREATH else cost)
    return [*costs, 0.0]


def forced_breaks(pieces: Sequence[Piece]) -> list[bool]:
    """For each piece whether a subtitle must begin with it: somebody else speaks, or a long pause went before."""
    return [
        number > 0 and (not same_turn(pieces[number - 1], one) or one.start - pieces[number - 1].end > PAUSE)
        for number, one in enumerate(pieces)
    ]


def _after(text: str) -> float:
    bare = text.rstrip(CLOSERS) or text
    if bare[-1] in SENTENCE_ENDS:
        word = _plain(bare)
        initial = bare[-1] == "." and len(word) == 1 and word.isalpha()
        return PLAIN if initial or word in ABBREVIATIONS.split() else SENTENCE
    if bare[-1] in CLAUSE_ENDS:
        return CLAUSE
    return PLAIN


def _plain(text: str) -> str:
    """The word without the marks around it."""
    return text.lower().strip("".join(c for c in text if unicodedata.category(c)[0] in "PS"))
