"""Takes personal data and credentials out of what senders write, before the first byte of it is stored.

Two means: a list of names whose values always go (`password`, `set-cookie`, ...), and patterns, most of them
backed by a checksum or a fixed shape. A hit becomes `[redacted:<kind>]`; in fields that carry identity (`id`,
`dedup_key`, `entity.id`) it becomes a keyed pseudonym when one is given, so that two people never collapse
into one identity.

How it is fast: `triggers` looks once at a text and names the families of rules that could match at all. Each
rule is written so that its trigger is necessary (see Family), hence "no trigger" is a proof that no rule
matches, not a guess; a property test compares filtered with unfiltered results. Texts proven clean are
remembered, short ones only.

How it stays linear: no quantifier is nested over an ambiguous alternative; unbounded runs are possessive or
start only where the previous character cannot belong to the run.

Unicode: matching runs on a folded copy (NFKC per character, decimal digits of every script to ASCII, dashes
to '-', invisible characters dropped) with the offsets kept, so full-width or zero-width spellings do not
evade. Look-alike letters of other scripts are not folded.

Kinds covered: email, phone (E.164, NANP, bracketed area codes, others after a word such as "phone"), ssn
(US), card (ISO/IEC 7812 ranges and Luhn), iban (ISO 13616 lengths and mod 97), jwt (RFC 7519), keys of AWS,
GitHub, GitLab, Slack, Stripe, Google, OpenAI, npm and Tocsin, Standard Webhooks secrets, PEM private keys,
Bearer (RFC 6750) and Basic (RFC 7617) credentials, `name=value` secrets, cookies, userinfo of URLs. Profile
"prose" adds what is too common in log lines to be taken there: public IPv4 addresses, SSNs with blanks,
national phone numbers with a leading zero.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, Literal

from tocsin.kernel.ids import PSEUDONYM

Profile = Literal["prose", "log"]
Pseudonym = Callable[[str], str]
#: start, end (of the original text) and kind of something to take out
Span = tuple[int, int, str]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Names whose values are removed whatever they are. Compared on their last words, case and separators aside:
#: `api_key` also covers `X-Api-Key`, `stripeApiKey` and `stripe.api_key`, but not `api_key_count`.
REDACT_KEYS: Final = _names(
    """password passwd passphrase pwd secret token api_key access_key secret_key private_key authorization
    cookie set_cookie session_id credentials ssn social_security_number card card_number credit_card pan cvv
    cvc iban email email_address phone phone_number mobile_number date_of_birth dob"""
)
#: Fields of an event that the server sets or that validation has reduced to a closed grammar.
STRUCTURAL: Final = _names("specversion event_id occurred_at received_at severity_id status project_id trace_id flags")
#: A keyed pseudonym, as kernel.pseudonyms makes it; it stays even under a listed name.
#: Fields whose text names a thing: a hit there must stay distinguishable.
IDENTITY: Final = frozenset({"id", "dedup_key"})

_REMEMBERED_TEXTS: Final = 8192
_REMEMBERED_LENGTH: Final = 256


class Family:
    """Families of rules as bits, and what a text must contain for any rule of the family to match."""

    AT: Final = 1  # '@' or '%40': e-mail, userinfo
    DIGITS: Final = 2  # seven digits with only blanks and . - ( ) / + between them: phone, ssn, card, iban
    RUN: Final = 4  # 19 letters, digits, '_' or '-' in a row: tokens of known shape
    PAIR: Final = 8  # ':' or '=' and one of _PAIR_WORDS: name=value secrets, cookies
    AUTH: Final = 16  # 'bearer', 'basic' or 'whsec_'
    PEM: Final = 32  # '-----begin'
    DOTS: Final = 64  # three dots: IPv4
    ALL: Final = 127


_SEPARATORS: Final = b" .-()/+"
_DIGIT_CLASS: Final = bytes(0x30 if 0x30 <= b <= 0x39 else b for b in range(256))
_RUN_CLASS: Final = bytes(
    0x61 if chr(b) in "-_0123456789" or (b < 128 and chr(b).isalpha()) else 0x20 for b in range(256)
)
_SEVEN_DIGITS: Final = b"0" * 7
_RUN: Final = b"a" * 19
_PAIR_WORDS: Final = (b"pass", b"pwd", b"secret", b"token", b"key", b"auth", b"cookie", b"session")


def triggers(folded: str) -> int:
    """Families (bits) that could match in a folded text; one that is absent provably cannot."""
    raw = folded.encode("utf-8", "surrogatepass")
    found = 0
    if b"@" in raw or b"%40" in raw:
        found |= Family.AT
    if _SEVEN_DIGITS in raw.translate(_DIGIT_CLASS, _SEPARATORS):
        found |= Family.DIGITS
    if _RUN in raw.translate(_RUN_CLASS):
        found |= Family.RUN
    lower = raw.lower()
    if b":" in raw or b"=" in raw:
        for word in _PAIR_WORDS:
            if word in lower:
                found |= Family.PAIR
                break
    if b"bearer" in lower or b"basic" in lower or b"whsec_" in lower:
        found |= Family.AUTH
    if b"-----begin" in lower:
        found |= Family.PEM
    if raw.count(b".") > 2:
        found |= Family.DOTS
    return found


# --- folding
# ---------------------------------------------------------------------------------------------------------
_INVISIBLE: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f"
    "\ufe00-\ufe0f\ufeff"
)
_DASHES: Final = "\u2010-\u2015\u2212\u2e3a\u2e3b\ufe58\ufe63\uff0d\u30fc"
_DROP: Final = re.compile(f"[{_INVISIBLE}]")
_DASH: Final = re.compile(f"[{_DASHES}]")
_ODD: Final = re.compile(f"[{_INVISIBLE}{_DASHES}]|(?![0-9])\\d")


def _fold_character(char: str) -> str:
    if _DROP.match(char):
        return ""
    if _DASH.match(char):
        return "-"
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    return unicodedata.normalize("NFKC", char)


def fold(text: str) -> tuple[str, list[int] | None]:
    """The text as rules see it, and the offset in `text` of each of its characters (None: the same)."""
    if text.isascii() or (unicodedata.is_normalized("NFKC", text) and not _ODD.search(text)):
        return text, None
    parts: list[str] = []
    offsets: list[int] = []
    for offset, char in enumerate(text):
        plain = char if char < "\x80" else _fold_character(char)
        parts.append(plain)
        offsets.extend([offset] * len(plain))
    return "".join(parts), offsets


# --- rules
# -----------------------------------------------------------------------------------------------------------
_I: Final = re.ASCII | re.IGNORECASE
_LOCAL: Final = r"[^\s\x00-\x20\"(),:;<>@\[\\\]{}|=&?/'`]"
_LABEL: Final = r"(?:[A-Za-z0-9_-]|[^\x00-\x7f])++"
_EMAIL: Final = re.compile(rf"(?<!{_LOCAL}){_LOCAL}++@({_LABEL}(?:\.{_LABEL})++)", re.ASCII)
_ENCODED: Final = r"(?:[A-Za-z0-9._+-]|%(?!40)[0-9A-Fa-f]{2}){1,192}+"  # 64 octets of RFC 5321, each as %XX
_EMAIL_ENCODED: Final = re.compile(rf"(?<![A-Za-z0-9._+-]){_ENCODED}%40({_LABEL}(?:\.{_LABEL})++)", re.ASCII)
_TLD: Final = re.compile(r"(?:[A-Za-z]|[^\x00-\x7f]){2}")
_USERINFO: Final = re.compile(r"(?<=://)[^\s/?#\"'<>]+(?=@)", re.ASCII)

_CLUSTER: Final = re.compile(r"[+(]{0,2}\d(?:[ .()/-]{0,3}\d){6,}+", re.ASCII)
_CARD: Final = re.compile(
    r"(?<![\w.-])(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,4}(?:\1\d{1,4})?|3\d{3}([ -])\d{6}\2\d{4,5})"
    r"(?!\w|[.-]\d)",
    re.ASCII,
)
#: Issuer ranges with the lengths they use, for numbers written without groups (ISO/IEC 7812, issuers' own
# tables).
_ISSUER: Final = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[68]\d)\d{11}|(?:6011|65\d\d|64[4-9]\d)\d{12,15}|35(?:2[89]|[3-8]\d)\d{12,15}|62\d{14,17}",
    re.ASCII,
)
_SSN: Final = re.compile(r"(?<![\w-])(?!000|666|9)\d{3}([- ]?)(?!00)\d\d\1(?!0000)\d{4}(?!\w|[.-]\d)", re.ASCII)
_SSN_WORD: Final = re.compile(r"ssn|social.?sec", _I)
_NANP: Final = re.compile(
    r"(?<![\w.+-])(?:1[-. ])?[2-9]\d\d([-. ])[2-9]\d\d\1\d{4}(?: ?x\d{1,6})?(?!\w|[.-]\d)", re.ASCII
)
_BRACKETED: Final = re.compile(
    r"(?<![\w.])(?:1[-. ]?)?\(0?\d{2,4}\)[ .-]?\d{3,4}[ .-]?\d{3,4}(?: ?x\d{1,6})?(?!\w|[.-]\d)", re.ASCII
)
_NATIONAL: Final = re.compile(r"(?<![\w.+-])0\d{1,5}(?:[ /-]{1,3}\d{2,8}){1,4}(?!\w|[.-]\d)", re.ASCII)
_PHONE_WORD: Final = re.compile(
    r"(?<![A-Za-z])(?:(phone|telephone|tel|mobile|cell|fax|whatsapp|sms|msisdn)|call|dial|ring|contact|text)(?![A-Za-z])",
    _I,
)
_DATE: Final = re.compile(r"(?:19|20)\d\d[-/.](?:0?\d|1[0-2])(?!\d)|(?:19|20)\d\d[01]\d[0-3]\d(?!\d)", re.ASCII)
_IPV4: Final = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?!\w|[.-]\w)", re.ASCII)
_DECIMAL: Final = re.compile(r"\+\d+\.\d+", re.ASCII)
_GROUP: Final = re.compile(r"[^ ]+")

_IBAN_HEAD: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d\d(?=[ -]?[A-Za-z0-9])", re.ASCII)
_IBAN_COUNTRIES: Final = (
    (15, "NO"), (16, "BE"), (18, "DK FI FK FO GL NL SD"), (19, "MK SI"), (20, "AT BA EE KZ LT LU MN XK"),
    (21, "CH HR LI LV"), (22, "BG BH CR DE GB GE IE ME RS VA"), (23, "AE GI IL IQ OM SO TL"),
    (24, "AD CZ ES MD PK RO SA SE SK TN VG"), (25, "LY PT ST"), (26, "IS TR"),
    (27, "BI DJ FR GR IT MC MR SM"),
    (28, "AL AZ BY CY DO GT HN HU LB NI PL SV"), (29, "BR EG PS QA UA"), (30, "JO KW MU YE"), (31, "MT SC"),
    (32, "LC"), (33, "RU"),
)  # fmt: skip
_IBAN_LENGTH: Final = {country: length for length, countries in _IBAN_COUNTRIES for country in countries.split()}
_SEVEN: Final = re.compile(r"\d{7}", re.ASCII)

_TOKEN: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?P<aws_key>A[KS]IA[A-Z0-9]{16}(?![A-Za-z0-9]))"
    r"|(?P<tocsin_key>tcn_(?:live|test)_[A-Za-z0-9]{20,}+)"
    r"|(?P<github_token>gh[pousr]_[A-Za-z0-9]{30,}+|github_pat_[A-Za-z0-9_]{22,}+)"
    r"|(?P<gitlab_token>glpat-[A-Za-z0-9_-]{20,}+)"
    r"|(?P<slack_token>xox[abceoprs]-[A-Za-z0-9-]{14,}+)"
    r"|(?P<stripe_key>[rsp]k_(?:live|test)_[A-Za-z0-9]{16,}+)"
    r"|(?P<google_key>AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,}+)"
    r"|(?P<openai_key>sk-(?:[A-Za-z0-9]{32,}+|(?:proj|ant|svcacct)-[A-Za-z0-9_-]{20,}+))"
    r"|(?P<npm_token>npm_[A-Za-z0-9]{36})"
    r"|(?P<jwt>eyJ[A-Za-z0-9_-]{16,1024}+\.[A-Za-z0-9_-]{2,}+(?:\.[A-Za-z0-9_-]*+){1,3})"
    r")",
    re.ASCII,
)
_AWS_SECRET: Final = re.compile(r"(?<![A-Za-z0-9/+])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])", re.ASCII)
_PEM: Final = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?!-----END)[\s\S])*+(?:-----END [A-Z0-9 ]{0,40}-----)?",
    _I,
)
_BEARER: Final = re.compile(r"(?<![A-Za-z0-9])bearer[ :=]{1,3}([A-Za-z0-9._~+/-]{16,}+=*+)", _I)
_BASIC: Final = re.compile(r"(?<![A-Za-z0-9])basic {1,3}([A-Za-z0-9+/]{4,}+={0,2})", _I)
_WEBHOOK: Final = re.compile(r"(?<![A-Za-z0-9])whsec_[A-Za-z0-9+/]{16,}+={0,2}", re.ASCII)
_PAIR: Final = re.compile(
    r"(?:(?P<secret>passw(?:or)?d|passphrase|pwd|secret(?:[_-]?key)?|(?:api|access|private|account)[_-]?key)"
    r"|(?P<token>token|session[_-]?(?:id|key)|authorization|x-auth))"
    r"\\{0,3}[\"']?\s{0,3}(?:=>|:=|[:=])\s{0,3}"
    r"(?:(?:basic|bearer|digest|negotiate|ntlm|token|apikey) {1,3})?"
    r"(?:\\{1,3}\"(?P<escaped>[^\"\n]*+)|\"(?P<double>(?:[^\"\\\n]|\\.)*+)|'(?P<single>[^'\n]*+)"
    r"|(?P<bare>[^\s,;&\"'<>()\[\]{}\\][^\s,;&\"'<>]*+))",
    _I,
)
_COOKIE: Final = re.compile(r"cookie\\{0,3}[\"']?\s{0,3}[:=]\s{0,3}\\{0,3}[\"']?([^\s\"'=;,]{1,128}+=[^\r\n\"']*+)", _I)
_ORDINARY: Final = _names(
    """accepted changed disabled empty enabled expired fail failed failure false incorrect invalid is mismatch
    missing n/a nil no none not null ok optional rejected required reset revoked rotated success true
    undefined unknown unset updated wrong yes - * ** *** **** ***** ********"""
)


def _digits(text: str) -> str:
    return "".join(char for char in text if char.isdigit())


def luhn(digits: str) -> bool:
    """Whether a string of ASCII digits satisfies the Luhn check (ISO/IEC 7812-1 annex B)."""
    total = 0
    for place, char in enumerate(reversed(digits)):
        digit = int(char) << (place & 1)
        total += digit - 9 if digit > 9 else digit
    return total % 10 == 0


def iban_valid(compact: str) -> bool:
    """Whether an IBAN without blanks has its country's length and check digits (ISO 13616)."""
    upper = compact.upper()
    if _IBAN_LENGTH.get(upper[:2]) != len(upper):
        return False
    return int("".join(str(int(char, 36)) for char in upper[4:] + upper[:4])) % 97 == 1


def _addresses(text: str) -> Iterator[Span]:
    hosts = set()  # where the host of a URL begins: its '@' does not make an e-mail address of the password
    for match in _USERINFO.finditer(text):
        hosts.add(match.end() + 1)
        if match[0] != "git":
            yield match.start(), match.end(), "userinfo"
    for pattern in (_EMAIL, _EMAIL_ENCODED):
        for match in pattern.finditer(text):
            if match.start(1) in hosts or match[0].lower().startswith("git@"):
                continue
            if _TLD.match(match[1].rpartition(".")[2]):
                yield match.start(), match.end(), "email"


def _phone_end(text: str, start: int, end: int, enough: int) -> int | None:
    """End of the phone number that begins a cluster: whole groups until `enough` digits, 7 to 15."""
    count, last = 0, start
    for group in _GROUP.finditer(text, start, end):
        size = len(_digits(group[0]))
        if count >= enough or count + size > 15 or (count >= 7 and _DATE.match(group[0])):
            break
        count, last = count + size, group.end()
    return last if count >= 7 else None


def _numbers(text: str, profile: Profile) -> Iterator[Span]:
    for cluster in _CLUSTER.finditer(text):
        start, end = cluster.span()
        stop = end + 10  # room for an extension; look-aheads read two characters at most
        for match in _CARD.finditer(text, start, stop):
            digits = _digits(match[0])
            known = len(match[0]) > len(digits) or _ISSUER.fullmatch(digits)
            if known and digits[0] in "23456" and len(digits) >= 13 and luhn(digits) and len(set(digits)) > 1:
                yield match.start(), match.end(), "card"
        for match in _SSN.finditer(text, start, stop):
            sure = match[1] == "-" or (profile == "prose" and match[1])
            if sure or _SSN_WORD.search(text, max(0, match.start() - 30), match.start()):
                yield match.start(), match.end(), "ssn"
        for pattern in (_NANP, _BRACKETED):
            for match in pattern.finditer(text, start, stop):
                if pattern is _BRACKETED or match[1] != " " or profile == "prose":
                    yield match.start(), match.end(), "phone"
        if profile == "prose":
            for match in _NATIONAL.finditer(text, start, stop):
                if 8 <= len(_digits(match[0])) <= 13:
                    yield match.start(), match.end(), "phone"
        before = text[start - 1] if start else " "
        if before.isalnum() or before in "_.-+":
            continue
        lead = cluster[0].lstrip("(")
        if lead[0] == "+":
            if lead[1:2] == "0" or _DECIMAL.fullmatch(lead):  # no country code begins with 0 (ITU-T E.164)
                continue
            last = _phone_end(text, start, end, 11)
        else:
            said = list(_PHONE_WORD.finditer(text, max(0, start - 40), start))
            if not said or _DATE.match(lead) or _IPV4.fullmatch(lead):
                continue
            sure = any(word[1] for word in said) or not cluster[0].isdigit() or lead[0] == "0"
            last = _phone_end(text, start, end, 10) if sure else None
        if last is not None and not text[last : last + 1].isalpha():
            yield start, last, "phone"
    for head in _IBAN_HEAD.finditer(text):
        length = _IBAN_LENGTH.get(head[0][:2].upper())
        if length is not None:
            compact, end = _take(text, head.start(), length)
            if _SEVEN.search(compact) and iban_valid(compact):
                yield head.start(), end, "iban"


def _take(text: str, start: int, length: int) -> tuple[str, int]:
    """`length` ASCII letters and digits from `start` on, single blanks or hyphens skipped, and the end."""
    out: list[str] = []
    position = start
    while position < len(text) and len(out) < length:
        char = text[position]
        if char.isascii() and char.isalnum():
            out.append(char)
        elif char not in " -" or text[position - 1] in " -":
            break
        position += 1
    following = text[position : position + 1]
    return ("", position) if following.isascii() and following.isalnum() else ("".join(out), position)


def _tokens(text: str) -> Iterator[Span]:
    for match in _TOKEN.finditer(text):
        yield match.start(), match.end(), match.lastgroup or "token"
        if match.lastgroup == "aws_key":
            secret = _AWS_SECRET.search(text, match.end(), match.end() + 120)
            if secret:
                yield secret.start(), secret.end(), "aws_secret"


def _pairs(text: str) -> Iterator[Span]:
    position = 0
    while match := _PAIR.search(text, position):
        group = next(name for name in ("escaped", "double", "single", "bare") if match[name] is not None)
        value = match[group].rstrip("\\" if group == "escaped" else ")]}" if group == "bare" else "")
        start = match.start(group)
        if _secret_value(value, strict=match["token"] is not None):
            position = start + len(value)
            yield start, position, "secret"
        else:
            position = max(start, match.start() + 1)  # a rejected value is short and may hold the next name
    for match in _COOKIE.finditer(text):
        yield match.start(1), match.end(1), "cookie"


def _secret_value(value: str, *, strict: bool) -> bool:
    if not value or value.lower().rstrip(".!") in _ORDINARY or value.startswith("[redacted:"):
        return False
    if not strict or len(value) >= 20:
        return True
    return len(value) >= 8 and not value.startswith("0x") and any(char.isdigit() for char in value)


def _credentials(text: str) -> Iterator[Span]:
    for match in _BEARER.finditer(text):
        if len(match[1]) >= 32 or any(char.isdigit() for char in match[1]) or not match[1].islower():
            yield match.start(1), match.end(1), "bearer"
    for match in _BASIC.finditer(text):
        try:
            decoded = base64.b64decode(match[1] + "=" * (-len(match[1]) % 4), validate=True)
        except binascii.Error:
            continue
        if b":" in decoded and decoded.isascii():
            yield match.start(1), match.end(1), "basic"
    for match in _WEBHOOK.finditer(text):
        yield match.start(), match.end(), "webhook_secret"


def _public_addresses(text: str) -> Iterator[Span]:
    for match in _IPV4.finditer(text):
        try:
            public = ipaddress.IPv4Address(match[0]).is_global
        except ValueError:
            continue
        if public:
            yield match.start(), match.end(), "ip"


def find(folded: str, families: int, profile: Profile) -> list[Span]:
    """What the rules of some families find in a folded text: disjoint spans in order, overlaps united."""
    found: list[Span] = []
    if families & Family.PEM:
        found += [(match.start(), match.end(), "private_key") for match in _PEM.finditer(folded)]
    if families & Family.RUN:
        found += _tokens(folded)
    if families & Family.AT:
        found += _addresses(folded)
    if families & Family.AUTH:
        found += _credentials(folded)
    if families & Family.PAIR:
        found += _pairs(folded)
    if families & Family.DIGITS:
        found += _numbers(folded, profile)
    if families & Family.DOTS and profile == "prose":
        found += _public_addresses(folded)
    united: list[Span] = []
    for start, end, kind in sorted(found, key=lambda span: (span[0], -span[1])):
        if united and start < united[-1][1]:
            first, last, named = united[-1]
            united[-1] = (first, max(last, end), named)
        else:
            united.append((start, end, kind))
    return united


# --- names
# -----------------------------------------------------------------------------------------------------------
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z0-9]+", re.ASCII)


@lru_cache(maxsize=8192)
def words(name: str) -> tuple[str, ...]:
    """A field name in lower-case words: `X-Api-Key` and `xApiKey` both give ("x", "api", "key")."""
    return tuple(word.lower() for word in _CAMEL.split(fold(name)[0]) if word)


def _remember(memory: set[str], texts: list[str]) -> None:
    if len(memory) > _REMEMBERED_TEXTS:
        memory.clear()
    memory.update(text for text in texts if len(text) <= _REMEMBERED_LENGTH)


class Redactor:
    """The engine with one list of names and one profile. Build it once; its memory of clean texts is what
    makes it fast.

    `keys` replaces REDACT_KEYS. Names and texts are compared as described at the top of the module.
    """

    def __init__(self, keys: Iterable[str] = REDACT_KEYS, profile: Profile = "log") -> None:
        if profile not in ("prose", "log"):
            raise ValueError("profile is prose or log")
        self.profile: Final[Profile] = profile
        self._keys = frozenset("".join(words(key)) for key in keys)
        self._families = Family.ALL if profile == "prose" else Family.ALL & ~Family.DOTS
        self._clean: set[str] = set()
        self._clean_names: set[str] = set()

    def text(self, text: str, pseudonym: Pseudonym | None = None) -> str:
        """`text` with every hit replaced by `[redacted:<kind>]`, or by `pseudonym(hit)` when one is given."""
        if text in self._clean:
            return text
        folded, offsets = fold(text)
        families = triggers(folded) & self._families
        spans = find(folded, families, self.profile) if families else []
        if not spans:
            _remember(self._clean, [text])
            return text
        out: list[str] = []
        position = 0
        for start, end, kind in spans:
            hit = folded[start:end]
            if offsets is not None:
                start, end = offsets[start], offsets[end - 1] + 1
            out += text[position:start], f"[redacted:{kind}]" if pseudonym is None else pseudonym(hit)
            position = end
        return "".join(out) + text[position:]

    def event(self, event: Mapping[str, Any], pseudonym: Pseudonym | None = None) -> dict[str, Any]:
        """A copy of an event without personal data or credentials in anything the sender wrote.

        Every text outside STRUCTURAL is treated, names in mappings included. Under a name of the key list the
        whole value goes (numbers too, null and booleans stay), except in `metrics`, whose numbers are never
        changed. Hits in `id`, `dedup_key` and `entity.id` become `pseudonym(hit)` when given: equal ids stay
        equal, others stay apart. Use one keyed pseudonym per project (kernel.pseudonyms). Untouched parts are
        shared with the input.
        """
        if self._proven_clean(event):
            return dict(event)
        out: dict[str, Any] = {}
        for name, value in event.items():
            if name in STRUCTURAL:
                out[name] = value
            elif name in IDENTITY and isinstance(value, str):
                out[name] = self.text(value, pseudonym)
            elif name == "entity" and isinstance(value, Mapping):
                out[name] = {
                    key: self.text(part, pseudonym) if key == "id" and isinstance(part, str) else self._value(part)
                    for key, part in value.items()
                }
            elif name == "metrics" and isinstance(value, Mapping):
                out[name] = self._renamed((self.text(key), part) for key, part in value.items())
            else:
                out[name] = self._value(value)
        return out

    def sensitive(self, name: str) -> str | None:
        """The entry of the key list (in plain letters) that a field name ends with, or None."""
        parts = words(name)
        for first in range(len(parts)):
            tail = "".join(parts[first:])
            if tail in self._keys:
                return tail
        return None

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return self._renamed(self._member(key, part) for key, part in value.items())
        if isinstance(value, (list, tuple)):
            return [self._value(part) for part in value]
        return value

    def _member(self, name: str, value: Any) -> tuple[str, Any]:
        listed = self.sensitive(name)
        if listed is None or (isinstance(value, str) and PSEUDONYM.fullmatch(value)):
            return self.text(name), self._value(value)
        keep = value is None or isinstance(value, bool) or value == ""
        return self.text(name), value if keep else f"[redacted:{listed}]"

    @staticmethod
    def _renamed(members: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        """A mapping of the members; names that became equal are numbered, so that none is lost."""
        out: dict[str, Any] = {}
        for name, value in members:
            unique, number = name, 2
            while unique in out:
                unique, number = f"{name}_{number}", number + 1
            out[unique] = value
        return out

    def _proven_clean(self, event: Mapping[str, Any]) -> bool:
        """Whether no name is listed and no rule can match anywhere; what was proven is remembered."""
        fresh: list[str] = []
        names: list[str] = []
        for name, value in event.items():
            if name in STRUCTURAL:
                continue
            if type(value) is str:
                if value not in self._clean:
                    fresh.append(value)
            elif not self._gather(value, fresh, names, name != "metrics"):
                return False
        if fresh or names:
            # A line feed cannot stand inside anything the triggers look for, so joining hides and invents
            # nothing.
            joined = fold("\n".join(fresh + names))[0]
            if triggers(joined) & self._families:
                return False
            _remember(self._clean, fresh)
            _remember(self._clean_names, names)
        return True

    def _gather(self, value: Any, fresh: list[str], names: list[str], listed: bool) -> bool:
        kind = type(value)
        if kind is str:
            if value not in self._clean:
                fresh.append(value)
        elif kind is dict:
            for name, part in value.items():
                if name not in self._clean_names:
                    if listed and self.sensitive(name) is not None:
                        return False
                    names.append(name)
                if type(part) is str:
                    if part not in self._clean:
                        fresh.append(part)
                elif not self._gather(part, fresh, names, listed):
                    return False
        elif kind is list:
            for part in value:
                if not self._gather(part, fresh, names, listed):
                    return False
        elif isinstance(value, (str, Mapping, tuple)):
            return False  # an unusual type: take the general way
        return True
