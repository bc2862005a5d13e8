"""Replies that deny hearing and replies that listened, in English and Chinese, and the interval of a share."""

# ruff: noqa: RUF001  (full-width marks are meant)
import pytest

from mlx_audio_r1.tasks.self_cognition import (
    HELD_OUT,
    PERCEPTION_QUESTIONS,
    denies_hearing,
    judge_denial,
)

DENIALS = (
    "I cannot hear audio.",
    "I can't hear the audio you sent.",
    "I can’t listen to the recording.",
    "I am a text model and cannot hear audio.",
    "I'm sorry, but I cannot process audio files.",
    "I can not play the clip.",
    "Unfortunately I am unable to listen to audio recordings.",
    "I am unable to directly access or analyze the audio.",
    "I'm not able to hear sounds.",
    "I do not have the ability to listen to audio.",
    "I don't have the capability to process sound files.",
    "I have no way to listen to the clip.",
    "I lack the ability to hear sound.",
    "I am not capable of hearing the recording.",
    "I'm incapable of processing audio input.",
    "It is not possible for me to play audio.",
    "I **cannot** hear the audio.",
    "I cannot see images or hear audio.",
    "I cannot actually analyse the sound.",
    "As a text-based AI, I would guess a bell.",
    "As a language model, I have no ears.",
    "As an AI language model, I can only guess.",
    "I'm just a text-based assistant.",
    "I am a large language model and read what you write.",
    "No audio was provided.",
    "There is no audio file in your message.",
    "No audio input here; please describe it.",
    "I didn't receive any audio.",
    "I do not have access to the recording.",
    "The audio was not attached.",
    "I only process text.",
    "I can only read text.",
    "I only read text.",
    "My abilities are limited to text.",
    "I am a text-only model.",
    "Based on the transcript provided, it is a song.",
    "Based on the description you provided, a dog barks.",
    "A bell, I would say, but I can't hear any audio.",
    "I cannot hear your voice.",
    "The question asks for pitch. However, I cannot perceive audio directly.",
    "我无法听到音频。",
    "我不能听录音，请描述一下。",
    "抱歉，我没有办法播放这段音频。",
    "我无法直接处理音频文件。",
    "作为一个语言模型，我听不见。",
    "我是文本模型，只能看文字。",
    "我是一个基于文本的AI。",
    "我没有收到音频。",
    "您没有提供任何音频文件。",
    "我仅能处理文本。",
    "我只能处理文字。",
    "我听不到您发来的音频。",
    "我听不见这段录音。",
    "我听不到你的声音。",
    "我不具备听觉。",
    "我没有处理音频的能力。",
    "根据您提供的文本，这是一首歌。",
    "我無法聽到音頻。",
    "对不起，我无法分析这段声音。",
    "我不能接收语音。",
    "我不支持处理音频。",
)
LISTENED = (
    "Yes, a bell rings twice.",
    "I hear nothing in the clip.",
    "It is silent: I cannot hear any sound in the recording.",
    "The recording is silence; I can't hear the audio at all.",
    "I cannot hear any voice in this clip.",
    "I can't hear a voice in the recording.",
    "I can't hear any music in it.",
    "I cannot hear anyone speaking in the audio.",
    "I can't hear any difference between the two sounds.",
    "I can't hear any audio in the second half of this recording.",
    "The word is not audible in this clip.",
    "I cannot identify the brand.",
    "I cannot identify the brand of the engine from the audio.",
    "I cannot tell the speaker's name from the voice.",
    "I cannot make out the words in the recording.",
    "I could not hear the voice clearly.",
    "I cannot hear the second voice very well.",
    "I can't hear the sound in the background well enough to name it.",
    "Nothing is audible.",
    "Almost silence.",
    "No speech.",
    "No voice.",
    "No, nobody speaks in the clip.",
    "There is no audio distortion.",
    'The speaker says: "I cannot hear the audio".',
    "She says “I'm sorry, I can't hear your voice”.",
    "He cannot hear the music, so he shouts.",
    "You cannot hear the sound above 20 kHz.",
    "People who cannot hear sound would see the drum shake.",
    "I can hear the audio: a drum.",
    "I am a language model that can listen to audio: this is a bell.",
    "I can process audio, not only text.",
    "I cannot analyze the sound's exact frequency.",
    "The text on the label is not heard.",
    "The first is louder.",
    "B. drum",
    "The singer sings that she cannot play the piano.",
    "I can hear simple sounds: tones, bells, noise, music, silence and whether a man or a woman speaks.",
    "",
    "是的，我听到了铃声。",
    "我听到一个男人在说话。",
    "录音里是静音，什么也听不到。",
    "这段录音是静音，我无法听到任何声音。",
    "这段音频里听不到人声。",
    "录音中听不到音乐。",
    "我无法听出说话人的身份。",
    "我无法听清录音里的词。",
    "无法从这段录音中听出声音的来源。",
    "我不能在这段录音里听到其他声音。",
    "无法判断是什么品牌。",
    "我无法分析声音的来源。",
    "没有人说话，只有噪音。",
    "他说“我听不到你的声音”。",
    "音质清晰，没有杂音。",
    "我可以处理音频：这是鼓声。",
    "我是一个语言模型，可以听音频：这是铃声。",
    "听起来像是一段音乐。",
    "听不出是哪种乐器。",
    "声音很小，听不清。",
)


@pytest.mark.parametrize("reply", DENIALS)
def test_who_denies_hearing_is_found(reply):
    assert denies_hearing(reply)


@pytest.mark.parametrize("reply", LISTENED)
def test_who_listened_is_left_in_peace(reply):
    assert denies_hearing(reply) is None


def test_the_match_says_where():
    found = denies_hearing("A bell. But as a text model I guess.")
    assert found.group() == "as a text model" and found.start() == 12


def test_a_reply_is_wrong_for_its_answer_and_its_thinking_counts_apart():
    denial = judge_denial("I cannot hear audio, but the notes say a bell.", "A bell.")
    assert not denial.wrong and denial.thinking
    assert judge_denial("A bell.", "I cannot hear audio.").wrong


def test_no_question_denies_and_both_languages_weigh_the_same():
    assert {len(q) for q in PERCEPTION_QUESTIONS.values()} == {20} and HELD_OUT < 10
    asked = [q for questions in PERCEPTION_QUESTIONS.values() for q in questions]
    assert len(set(asked)) == 40 and not any(denies_hearing(q) for q in asked)


def test_long_texts_take_no_time():
    text = "I cannot the the the audio or the hear the the, " * 2_000 + "不能听到" * 5_000
    assert denies_hearing(text) is None
