"""What texts and addresses say about a picture, as SQL predicates over documented word lists.

Lists cannot be complete, and a word is no proof: they lean to leaving a picture out where a mistake would hurt somebody
(minors, nudity), and are off by default where one would only cost data (mention of a person, replacing of names).
"""

from __future__ import annotations

from warehouse.lake import quoted

# Words for people under 18, in the languages that large crawls hold most of. Words that are common with another
# meaning are left out: English "kind", "minor", German "Kind", "Junge".
_MINOR_WORDS = (
    r"child|children|childhood|kids?|kiddo|toddlers?|bab(?:y|ies)|infants?|newborns?|preschool(?:er)?s?|kindergarten(?:er)?s?|"
    r"schoolboys?|schoolgirls?|school\s?children|schoolkids?|boys?|girls?|teens?|teenage(?:d|rs?)?|tweens?|adolescents?|"
    r"underage|juveniles?|pupils?|jailbait|"
    r"kinder|kleinkind|säugling|jugendliche[rn]?|mädchen|schüler(?:in)?|"
    r"enfants?|bébés?|fillettes?|garçonnets?|adolescente?s?|"
    r"niñ[oa]s?|bebés?|muchach[oa]s?|bambin[oaie]|ragazzin[oaie]|neonat[oai]|crianças?|menin[oa]s?|"
    r"dziecko|dzieci|niemowlę|kinderen|peuter|kleuter|ребен(?:ок|ка|ку)|ребён(?:ок|ка|ку)|дети|детей|малыш|школьни(?:к|ца)|подросток"
)
_MINOR_CJK = "子供|子ども|こども|赤ちゃん|幼児|少年|少女|小学生|中学生|孩子|儿童|兒童|婴儿|嬰兒|아이|어린이|아기"
_MINOR_AGES = (
    r"\b(?:[0-9]|1[0-7])[\s-]?(?:years?|yrs?|months?|weeks?)[\s-]?old\b|\bage[ds]?:?\s?(?:[0-9]|1[0-7])\b|"
    r"\b(?:[0-9]|1[0-7])\s?(?:ans|años|jahre|anni)\b"
)
_NSFW_WORDS = (
    r"porn\w*|nsfw|xxx+|nud(?:e|es|ity|ist|ists)|naked|topless|erotic\w*|hentai|sex|sexy|sexual\w*|masturbat\w*|blowjobs?|"
    r"handjobs?|cumshots?|creampie|milf|bdsm|fetish\w*|escorts?|camgirls?|onlyfans|stripper\w*|striptease|lingerie|upskirt|"
    r"cleavage|tits|boobs|pussy|dick|cock|orgasm\w*|genitals?|penis|vagina|nackt|desnud[oa]s?|nue?s|pornogra\w*"
)
_NSFW_HOSTS = (
    r"porn|xxx|hentai|xvideo|xhamster|xnxx|redtube|youporn|camgirl|onlyfans|chaturbate|stripchat|nudes?\b|escort|"
    r"(?:^|[.-])(?:sex|nsfw|nude|adult)|\.(?:xxx|porn|sex|adult|cam)$"
)
_PERSON_WORDS = (
    r"person|people|man|men|woman|women|lady|ladies|gentlem[ae]n|guy|guys|girl|boy|male|female|human|adult|senior|faces?|portrait|"
    r"headshot|selfie|mugshot|smil(?:e|es|ing)|frown\w*|laugh\w*|hair|haired|beard\w*|moustache|mustache|eyes?|eyeglasses|"
    r"glasses|he|she|his|her|him|actor|actress|singer|musician|player|coach|athlete|artist|author|writer|model|director|"
    r"president|minister|senator|congress(?:wo)?m[ae]n|representative|governor|mayor|judge|professor|doctor|teacher|"
    r"student|scientist|engineer|officer|soldier|king|queen|prince|princess|bishop|pope|father|mother|husband|wife|son|"
    r"daughter|brother|sister|friend|founder|chairm[ae]n|chairwoman|ceo|mr|mrs|ms|dr|sir|dame"
)
# Two or more words with a capital, with the small words and initials that stand inside names, or one after a title.
_TITLE = (
    r"(?:Mr|Mrs|Ms|Miss|Dr|Prof|Professor|Sir|Dame|Lord|Lady|Sen|Senator|Rep|Representative|Gov|President|Minister|"
    r"Judge)\.?"
)
_PART = r"\p{Lu}[\p{L}'’]*\p{Ll}[\p{L}'’-]*"
_SMALL = r"(?:\s+(?:\p{Lu}\.|van|von|der|de|del|da|di|bin|ibn|al|el|la|le)){0,2}"
_NAME = rf"\b{_TITLE}\s+(?:\p{{Lu}}\.\s*)*{_PART}(?:{_SMALL}\s+{_PART})*|\b{_PART}(?:{_SMALL}\s+{_PART})+"
NAME_REPLACEMENT = "a person"


def _whole_words(words: str) -> str:
    r"""A pattern for whole words: RE2's \b knows ASCII alone, so the boundary is 'no letter'."""
    return rf"(?i)(?:^|[^\p{{L}}])(?:{words})(?:[^\p{{L}}]|$)"


def _matches(text: str, pattern: str) -> str:
    return f"regexp_matches({text}, {quoted(pattern)})"


def says_minor_sql(text: str) -> str:
    """SQL predicate: `text` speaks of a child or of an age under 18."""
    return f"({_matches(text, f'{_whole_words(_MINOR_WORDS)}|{_MINOR_CJK}|(?i){_MINOR_AGES}')})"


def says_nsfw_sql(text: str) -> str:
    """SQL predicate: `text` speaks of nudity or sex."""
    return _matches(text, _whole_words(_NSFW_WORDS))


def is_nsfw_host_sql(host: str) -> str:
    """SQL predicate: the host (scheme://name[:port]) is named like a site for adults."""
    name = rf"regexp_extract({host}, '^[a-z]+://([^:/]+)', 1)"
    return _matches(name, f"(?i){_NSFW_HOSTS}")


def names_person_sql(text: str) -> str:
    """SQL predicate: `text` has a word for a person, a face or a part of one, or what looks like a name."""
    return f"({_matches(text, _whole_words(_PERSON_WORDS))} OR {_matches(text, _NAME)})"


def without_names_sql(text: str) -> str:
    """SQL: `text` with what looks like a personal name replaced by "a person".

    Looks are all there is to go by: a place of two capitalised words goes as well, a lone first name stays.
    """
    return f"regexp_replace({text}, {quoted(_NAME)}, {quoted(NAME_REPLACEMENT)}, 'g')"
