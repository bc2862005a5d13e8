"""Words of listening against words of reading: does a reasoning speak of the sound or of a text about it?

Acoustic terms in eight categories, and textual surrogates ("the transcript says", 根据描述), in English and
Chinese. A word list can be gamed by saying the words: the evidence filter stands beside it.

The paper (section 4.2) filters on "perceptual features, not textual descriptions" and gives no list; this
one is ours.
"""

# ruff: noqa: RUF001  (full-width marks are meant)
from __future__ import annotations

import re
from dataclasses import dataclass

ACOUSTIC: dict[str, tuple[str, str]] = {  # category -> English, Chinese; * stands for any ending
    "pitch": (
        "pitch*, f0, fundamental*, hz, khz, hertz, semitone*, octave*, intonation, monotone, "
        "high-pitched, low-pitched, falsetto, glissando, vibrato, glide*, melod*, interval*, chord*, "
        "notes, musical note, tonic, minor key, major key, minor chord, major chord, harmon*",
        "音高, 音调, 基频, 高音, 低音, 半音, 八度, 升调, 降调, 旋律, 和弦, 颤音, 滑音, 赫兹, 音阶",
    ),
    "timbre": (
        "timbr*, tone, tones, tonal*, bright*, dark tone*, warm, warmth, metallic, nasal*, overtone*, "
        "reson*, sine, sawtooth, square wave, percussive, plucked, bowed, distort*, buzz*, hollow",
        "音色, 明亮, 低沉, 浑厚, 金属声, 金属感, 鼻音, 泛音, 共鸣, 清脆, 沉闷, 失真, 锯齿波, 正弦波, 质感",
    ),
    "rhythm": (
        "rhythm*, tempo*, bpm, beat, beats, syncopat*, pace, paced, pacing, pause*, duration*, "
        "speaking rate, speech rate, staccato, legato, onset*, decay*, fast-paced, cadence",
        "节奏, 节拍, 速度, 语速, 停顿, 时长, 快板, 慢板, 拍子, 起音, 衰减, 鼓点, 急促, 舒缓",
    ),
    "loudness": (
        "loud*, volume, decibel*, db, quiet*, soft, softer, softly, crescendo, decrescendo, fade*, "
        "fading, amplitude*, intensity, dynamic*, energy, whisper*, shout*, fortissimo, pianissimo",
        "响度, 音量, 分贝, 响亮, 轻声, 渐强, 渐弱, 振幅, 强弱, 动态, 大声, 小声, 能量, 喊叫, 耳语",
    ),
    "spectrum": (
        "spectr*, frequenc*, noise*, noisy, hiss*, hum, humming, static, reverb*, echo*, bandwidth, "
        "formant*, treble, bass, low-end, high-end, muffled, crackl*, clipping, broadband, background",
        "频谱, 频率, 噪声, 噪音, 杂音, 嘶声, 混响, 回声, 共振峰, 低频, 高频, 中频, 背景音, 底噪, 爆音",
    ),
    "voice": (
        "voice*, vocal*, hoarse*, breathy, breath*, raspy, husky, creak*, trembl*, quaver*, gravelly, "
        "accent*, male speaker, female speaker, baritone, soprano, tenor, sings, singing, singer*, sung, "
        "shaky, throaty",
        "嗓音, 声线, 沙哑, 气声, 颤抖, 口音, 男声, 女声, 童声, 人声, 哽咽, 嘶哑, 呼吸声, 磁性, 唱腔",
    ),
    "prosody": (
        "prosod*, stress*, emphas*, intonat*, tone of voice, inflection*, sarcas*, sigh*, laugh*, sob*, "
        "cry, crying, excited, hesita*, drawl*, rising tone, falling tone, calm, calmly, tense, "
        "expressive*",
        "语气, 语调, 重音, 强调, 情绪, 叹气, 笑声, 哭腔, 哭声, 犹豫, 激动, 平静, 抑扬顿挫, 讽刺, 拖长",
    ),
    "events": (
        "sound, sounds, sounded, sounding, click*, footstep*, barks, barking, bell, bells, drum*, clap*, "
        "engine*, siren*, distant, distance, left channel, right channel, stereo, silence, silent, hear, "
        "heard, hearing, audible, listen*, acoustic*, recording*",
        "声音, 听到, 听见, 听起来, 脚步声, 敲击, 铃声, 鼓声, 掌声, 引擎声, 远处, 近处, 左声道, 右声道, "
        "立体声, 静音, 寂静, 环境音, 录音, 声响",
    ),
}
SURROGATE = (  # English, Chinese
    "transcript*, transcription*, lyric*, caption*, subtitle*, the text, text mentions, text says, "
    "text description*, textual*, the description, described as, the passage, written, the words say, "
    "based on the description, according to the text, according to the description, metadata, "
    "the prompt says, the question says, the question mentions, file name, filename, the title, "
    "the document, reads as, keyword*, spelled out",
    "歌词, 文本, 字幕, 根据描述, 文字, 转写, 转录, 描述中, 文中, 文章, 标题, 字面, 关键词, 台词写, "
    "根据内容, 题目中提到, 文件名, 原文, 段落",
)
_CJK = "\u3400-\u9fff"
_WORD = re.compile(rf"[{_CJK}]|[A-Za-z0-9'’-]+")


def _pattern(english: str, chinese: str) -> re.Pattern[str]:
    """Whole words, longest first, so that every place counts once."""
    ways = [re.escape(w.rstrip("*")) + (r"[a-z]{0,12}" if w.endswith("*") else "") for w in _terms(english)]
    whole = rf"(?<![A-Za-z])(?:{'|'.join(ways)})(?![A-Za-z])"
    return re.compile(f"{whole}|{'|'.join(_terms(chinese))}", re.IGNORECASE)


def _terms(text: str) -> list[str]:
    return sorted(text.split(", "), key=len, reverse=True)


_ACOUSTIC = {name: _pattern(*words) for name, words in ACOUSTIC.items()}
_SURROGATE = _pattern(*SURROGATE)


@dataclass(frozen=True)
class Grounding:
    """How often a text speaks of sound, and how often of text. `words`: English words + Chinese characters."""

    acoustic: dict[str, int]  # category -> terms
    surrogate: int
    words: int

    @property
    def terms(self) -> int:
        """Acoustic terms of all categories."""
        return sum(self.acoustic.values())

    @property
    def ratio(self) -> float | None:
        """GR = A / (A + T), 0-1; None where neither is there."""
        total = self.terms + self.surrogate
        return self.terms / total if total else None

    @property
    def density(self) -> float:
        """Acoustic terms in a thousand words."""
        return 1000 * self.terms / self.words if self.words else 0.0

    @property
    def breadth(self) -> float:
        """The share of the eight categories that are touched."""
        return sum(count > 0 for count in self.acoustic.values()) / len(ACOUSTIC)


def grounding(text: str) -> Grounding:
    """Counts of a reasoning. A surrogate that holds an acoustic word ("the transcript of the recording")
    counts as both."""
    counts = {name: len(pattern.findall(text)) for name, pattern in _ACOUSTIC.items()}
    return Grounding(counts, len(_SURROGATE.findall(text)), len(_WORD.findall(text)))


def surrogate_terms(text: str) -> list[str]:
    """The textual surrogates of a text, in order, for people who ask why it was thrown out."""
    return _SURROGATE.findall(text)


def acoustic_terms(text: str) -> list[tuple[str, str]]:
    """(category, term) of a text, in order."""
    found = [(m.start(), name, m.group()) for name, p in _ACOUSTIC.items() for m in p.finditer(text)]
    return [(name, term) for _, name, term in sorted(found)]


def acoustic_places(text: str) -> list[tuple[int, int]]:
    """(start, end) of every acoustic term of a text, in order; terms of two categories may overlap."""
    return sorted(m.span() for pattern in _ACOUSTIC.values() for m in pattern.finditer(text))
