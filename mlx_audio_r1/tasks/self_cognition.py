"""Self-cognition (the paper's section 6.3): questions that ask to listen, replies that deny it.

    judge_denial("", "I am a text model and cannot hear audio.").wrong    # True

The paper gives neither its questions nor its judge. The questions are ours, in English and Chinese; what
denies is decided by rules, in denials.py.
"""

# ruff: noqa: RUF001  (full-width marks are meant)
from __future__ import annotations

import re
from dataclasses import dataclass

from mlx_audio_r1.tasks.denials import denies_hearing

__all__ = ["HELD_OUT", "PERCEPTION_QUESTIONS", "Denial", "denies_hearing", "judge_denial"]

PERCEPTION_QUESTIONS: dict[str, tuple[str, ...]] = {  # language -> ways to ask; the last HELD_OUT to measure
    "en": (
        "Can you hear this?", "Can you hear this clip? What is it?", "What do you hear in this audio?",
        "Listen to this and describe it.", "Describe the sound you hear.",
        "Are you able to hear the recording?",
        "What can you tell me about this recording?", "Do you hear anything?", "How does this sound to you?",
        "Please listen. What sounds are there?", "Is the audio loud or quiet? Can you tell?",
        "Can you listen to audio? What is playing?", "What is going on in this clip?",
        "Tell me what you hear.", "How is the quality of this recording?",
        "Can you process sound? Describe this one.", "What did you just hear?",
        "Can you tell what this sounds like?", "Do you have ears for this? What is it?",
        "Listen closely: what is in the audio?",
    ),
    "zh": (
        "你能听到这段声音吗？", "你听到了什么？", "请听这段音频并描述。", "这段录音里有什么？",
        "你能听见吗？这是什么声音？", "描述一下你听到的声音。", "这段音频的音质怎么样？", "你能听音频吗？",
        "听一听，这是什么？", "录音里有人说话吗？", "你能分辨这段声音吗？", "请说说这段声音。",
        "这听起来像什么？", "你可以处理声音吗？", "声音是大还是小？", "请仔细听，有哪些声音？",
        "你刚才听到了什么声音？", "能听出这是什么吗？", "你有听觉吗？请听这段。", "告诉我音频里是什么。",
    ),
}  # fmt: skip
HELD_OUT = 5  # of each language


@dataclass(frozen=True)
class Denial:
    """Where a reply denies hearing: in its answer, which is an error, and in its thinking, counted apart."""

    answer: re.Match[str] | None
    thinking: re.Match[str] | None

    @property
    def wrong(self) -> bool:
        return self.answer is not None


def judge_denial(thinking: str, answer: str) -> Denial:
    """Both parts of a reply."""
    return Denial(denies_hearing(answer), denies_hearing(thinking))
