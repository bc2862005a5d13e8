"""Claims that one cannot hear, in English and Chinese, found by rules.

    denies_hearing("I am a text model and cannot hear audio.")      # a match
    denies_hearing("I hear nothing in the clip.")                   # None: silence is no denial

The surprise: what matters is what cannot be heard. "I cannot hear the audio" denies, "I cannot hear any
voice in it" listened. Words in quotation marks are somebody else's and are passed over.
"""

# ruff: noqa: RUF001  (full-width marks are meant)
from __future__ import annotations

import re
from collections.abc import Callable


def denies_hearing(text: str) -> re.Match[str] | None:
    """The first place where somebody claims that they cannot hear or have no sound; None where nobody does."""
    text = _QUOTED.sub(lambda m: " " * len(m.group()), text.translate(_SAME))
    found = (m for pattern, heard in _PATTERNS for m in pattern.finditer(text) if not heard(m))
    return min(found, key=lambda m: m.start(), default=None)


# English: somebody who is not able, a verb of listening, and a sound as its object

_SAME = str.maketrans("’‘無聽沒錄聲頻語處獲為個僅見從裡沒", "''无听没录声频语处获为个仅见从里没")
_QUOTED = re.compile(r'"[^"\n]{0,300}"|“[^”\n]{0,300}”|「[^」\n]{0,300}」|《[^》\n]{0,300}》')
_GAP = r"[\s*_,/-]+"
_NOT = (
    r"(?:can(?:not|'?t|\s+not)|could(?:n'?t|\s+not)|(?:unable|not\s+(?:able|equipped|designed|built))\s+to"
    r"|(?:incapable|not\s+capable)\s+of"
    r"|(?:do(?:es)?(?:n'?t|\s+not)\s+have|lacks?|have\s+no|has\s+no|without)(?:\s+(?:the|any|an?))?"
    r"\s+(?:ability|capability|capacity|way|means)\s+(?:to|of|for)"
    r"|not\s+possible\s+for\s+me\s+to)"
)
_WITH = r"(?:actually|directly|currently|really|physically|even|literally|simply|personally|truly|yet|be|to)"
_VERB = (
    r"(?:hear(?:ing)?|listen(?:ing)?(?:\s+to)?|process(?:ing)?|access(?:ing)?|play(?:ing)?(?:\s+back)?"
    r"|analy[sz](?:e|ing)|perceiv(?:e|ing)|receiv(?:e|ing)|open(?:ing)?|decod(?:e|ing)|handl(?:e|ing))"
)
_PICTURES = rf"(?:{_GAP}(?:images?|pictures?|videos?|files?))?"
_BESIDE = rf"(?:{_VERB}|(?:see|view|watch|read|understand|interpret)(?:ing)?{_PICTURES})"
_OF = (
    r"(?:the|your|this|that|any|an?|such|these|those|actual|actually|real|raw|uploaded|attached|provided|given"
    r"|directly|live|contents?|of|or|and|recorded|external|embedded|user(?:'s)?|to|audio|sound|voice|mp3|wav"
    r"|images?|videos?|kind|type|form|all|media|other)"
)
_SOUND = r"(?:audio\w*|sounds?|recordings?|clips?|voices?|speech|music)"
_UNABLE = re.compile(
    rf"\b(?P<not>{_NOT})(?:{_GAP}{_WITH}){{0,3}}{_GAP}(?:{_BESIDE}{_GAP}(?:(?:or|and|nor){_GAP})?){{0,3}}"
    rf"(?P<verb>{_VERB})(?P<of>(?:{_GAP}{_OF}){{0,6}}?){_GAP}(?P<sound>{_SOUND})\b(?!'s\b)",
    re.IGNORECASE,
)
_OTHERS = re.compile(  # whose ears those are
    r"\b(?:he|she|they|you|people|person|listeners?|speakers?|man|woman|men|women|humans?|who|it|crowd|caller"
    r"|singer|audience|one|nobody|deaf)\s+(?:still\s+|really\s+|simply\s+|is\s+|are\s+|was\s+|were\s+)?$",
    re.IGNORECASE,
)
_SILENT = re.compile(
    r"\bsilen(?:t|ce)\b|\bno sound\b|\bhear nothing\b|\bnothing (?:can be |is |was )?(?:heard|audible)\b"
    r"|静音|寂静|无声|没有声音|没有任何声音|一片安静",
    re.IGNORECASE,
)
_WITHIN = re.compile(
    r"\W*(?:at all\W+)?(?:in|on|within|during|at|behind|under)\s+(?:the|this|that|your|its|either|both)\b",
    re.IGNORECASE,
)
_BADLY = re.compile(r"\W*(?:very\s+)?(?:clearly|well|properly|distinctly|precisely)\b", re.IGNORECASE)
_NONE_OF_MANY = re.compile(r"(?:^|\W)(?:any|an?|other)\b", re.IGNORECASE)


def _listened(match: re.Match[str]) -> bool:
    """Does somebody who listened say what is not in the sound, or is it somebody else who cannot hear?"""
    before, after = match.string[: match.start()], match.string[match.end() :]
    if _OTHERS.search(before) and "me" not in match["not"].split():
        return True
    if not match["verb"].lower().startswith("hear"):
        return False
    if _BADLY.match(after) or _SILENT.search(match.string):
        return True
    many = bool(_NONE_OF_MANY.search(match["of"]))
    itself = re.match(r"audio|recording|clip", match["sound"], re.IGNORECASE)
    if itself or re.search(r"\baudio\b", match["of"], re.IGNORECASE):
        return many and bool(_WITHIN.match(after))
    return many or bool(_WITHIN.match(after))


def _hears_after_all(match: re.Match[str]) -> bool:
    """ "I am a language model that can listen" """
    sentence = re.split(r"[.!?。！？\n]", match.string[match.end() :], maxsplit=1)[0]
    return bool(_ABLE.search(sentence)) and not _UNABLE.search(sentence)


_ABLE = re.compile(
    r"\b(?:can|able to|which|that|but I)\s+(?:also\s+|indeed\s+|do\s+)?(?:hears?|listens?"
    r"|process(?:es)?\s+(?:audio|sound))"
    r"|(?:能|可以|能够|会)(?:直接)?(?:听|处理(?:音频|声音))",
    re.IGNORECASE,
)


def _never(_: re.Match[str]) -> bool:
    return False


# Chinese: the same, where a verb that says how far one came (听出, 听清) has listened

_ZH_SOUND = r"(?:音频|声音|录音|语音|音乐)"
_ZH_UNABLE = re.compile(
    rf"(?:无法|不能|没有办法|没办法|不会|不支持|不具备)(?P<between>[^，。！？,.\n]{{0,8}}?)(?P<verb>听|处理|播放|接收"
    rf"|获取|分析|访问|打开|感知)(?P<of>[^，。！？,.\n]{{0,8}}?)(?P<sound>{_ZH_SOUND})(?P<after>的?)"
)
_ZH_DEAF = re.compile(
    r"听(?:不到|不见|不了)(?:你|您)?(?:的|这段|该|这个|那段|发来的|上传的|发送的|提供的){0,3}"
    r"(?:音频|录音|语音|(?<=你的)声音|(?<=您的)声音)"
)


def _zh_listened(match: re.Match[str]) -> bool:
    if re.search(r"[在从].{1,8}[中里]?$", match["between"]) or re.search(r"[他她它你您]们?$", _ahead(match, 2)):
        return True
    if match["verb"] == "听" and re.match(r"[出清辨懂准]", match["of"]):
        return True
    if match["verb"] == "听" and (_SILENT.search(match.string) or re.search("任何|其他|别的|有", match["of"])):
        return match["sound"] in ("声音", "音乐") or bool(_SILENT.search(match.string))
    after = match.string[match.end("sound") :]
    return bool(re.match(r"的(?!内容|文件|信息|数据|输入|能力)", after))


def _ahead(match: re.Match[str], count: int) -> str:
    return match.string[max(match.start() - count, 0) : match.start()]


def _zh_silent(match: re.Match[str]) -> bool:
    return bool(_SILENT.search(match.string)) or bool(re.search(r"[中里]$", _ahead(match, 1)))


# What else gives it away

_I_AM = r"(?:\bas|\bI\s*(?:'m|am)(?:\s+(?:just|only|merely|simply))?|\bbeing)"
_TEXT_MODEL = re.compile(
    rf"{_I_AM}\s+an?\s+(?:(?:AI|large|purely?)\s+)*(?:text|language)(?:[- ](?:based|only))?\s+(?:AI\s+)?"
    r"(?:language\s+)?(?:model|AI|assistant|program|system)\b",
    re.IGNORECASE,
)
_NO_AUDIO = re.compile(
    r"\bno\s+(?:audio|sound\s+file|recording)(?:\s+(?:file|input|attachment|clip))?\s+(?:(?:was|is|has\s+been|were)\s+)?"
    r"(?:actually\s+)?(?:provided|attached|uploaded|given|included|received|shared|sent)\b"
    r"|\bno\s+audio\s+(?:file|input|attachment)\b"
    r"|\b(?:did(?:n't|\s+not)|do(?:n't|\s+not)|have(?:n't|\s+not))\s+(?:receive|see|have\s+access\s+to|have|get)d?"
    r"(?:\s+(?:the|any|an|your))?\s+(?:audio|recording|sound\s+file)\b"
    r"|\bthe\s+(?:audio|recording)\s+(?:was|is)(?:n't|\s+not)\s+(?:provided|attached|uploaded|included|accessible)\b",
    re.IGNORECASE,
)
_ONLY_TEXT = re.compile(
    r"\b(?:only|solely|just|exclusively)\s+(?:able\s+to\s+|capable\s+of\s+)?(?:process|read|work\s+with|handle|understand"
    r"|see|accept|receive|take)(?:ing|s)?\s+(?:plain\s+|written\s+|in\s+)?text\b"
    r"|\b(?:process|read|handle|understand|accept)(?:ing|s)?\s+(?:only\s+text|text\s+only)\b"
    r"|\btext[- ]only\s+(?:AI\s+)?(?:model|assistant|AI|system)\b"
    r"|\blimited\s+to\s+(?:(?:processing|reading)\s+)?(?:plain\s+|written\s+)?text\b",
    re.IGNORECASE,
)
_FROM_TEXT = re.compile(
    r"\bbased\s+on\s+the\s+(?:text|transcript|description)\s+(?:that\s+)?(?:you\s+)?(?:have\s+)?provided\b",
    re.IGNORECASE,
)
_ZH_TEXT = re.compile(
    r"(?:我是|作为)(?:一[个款名种])?(?:纯|基于|大型|AI|人工智能|的)*(?:文本|语言|文字)的?(?:大?模型|助手|AI|人工智能|程序)"
)
_ZH_ELSE = re.compile(
    r"(?:没有|没|未|并未|尚未)(?:收到|提供|上传|附上|看到|接收到|发送)(?:任何|你的|您的|到)?.{0,4}?(?:音频|录音|语音)"
    r"|(?:仅|只|只有)(?:能够|能|可以|会)?(?:处理|阅读|理解|接收|看)(?:纯)?(?:文本|文字)"
    r"|(?:我)(?:并)?(?:没有|不具备|缺乏)(?:听觉|听力|听音频|处理(?:音频|声音)|听(?:声音)?的能力)"
    r"|根据(?:你|您)?(?:所)?提供的(?:文本|文字|描述|转录|转写)"
)
_PATTERNS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], bool]], ...] = (
    # pattern, whether a match is none after all
    (_UNABLE, _listened), (_TEXT_MODEL, _hears_after_all), (_NO_AUDIO, _never), (_ONLY_TEXT, _never),
    (_FROM_TEXT, _never), (_ZH_UNABLE, _zh_listened), (_ZH_DEAF, _zh_silent),
    (_ZH_TEXT, _hears_after_all), (_ZH_ELSE, _never),
)  # fmt: skip
