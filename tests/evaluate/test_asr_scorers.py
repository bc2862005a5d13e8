"""Error rates of transcripts: whisper's normaliser, corpus sums as jiwer's, Chinese and mixed speech by hand.

data/whisper.jsonl: 484 phrases as openai/whisper (v20250625) normalises them, from
`python -m tests.evaluate.official.make_verdicts FOLDER whisper`.
"""

# ruff: noqa: RUF001  (full-width marks are meant)

import json
import random
from pathlib import Path

import pytest

from mlx_audio_r1.evaluate.scorers import scorer
from mlx_audio_r1.evaluate.scorers.asr import chinese, english, mixed, rate, transcript
from mlx_audio_r1.evaluate.scoring import score
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.reply import Reply
from mlx_audio_r1.tasks.wording import Wording

jiwer = pytest.importorskip("jiwer")
PHRASES = [
    json.loads(line) for line in (Path(__file__).parent / "data" / "whisper.jsonl").read_text().splitlines()
]


def item(*references):
    return Item("u", (), Wording(references, "wer"))


def counts(name, said, *references):
    return scorer(name).rule(said, item(*references)).counts


def total(name, pairs):
    """The corpus number of (reference, said) pairs, as a summary makes it."""
    summed = {}
    for reference, said in pairs:
        for key, count in counts(name, said, reference).items():
            summed[key] = summed.get(key, 0) + count
    return scorer(name).total(summed)


def test_english_is_normalised_as_whisper_does():
    rows = PHRASES[1:]
    assert PHRASES[0]["replies"] == len(rows) >= 300
    assert [row for row in rows if english(row["text"]) != row["normal"].split()] == []


def test_the_word_error_rate_of_a_corpus_is_jiwers():
    """jiwer over lists: all errors over all words, no mean of rates."""
    rng = random.Random(5)
    normal = [row["normal"] for row in PHRASES[1:] if row["normal"].strip()]
    texts = [row["text"] for row in PHRASES[1:] if row["normal"].strip()]
    order = [rng.randrange(len(texts)) for _ in texts]
    ours = total("asr.wer", [(text, texts[other]) for text, other in zip(texts, order, strict=True)])
    assert ours == pytest.approx(
        jiwer.wer(normal, [normal[other] for other in order]), rel=1e-12
    )  # two divisions


def test_words_are_counted_by_hand():
    said = "The cat sat on the big mats"
    assert counts("asr.wer", said, "the cat sat at the mat today") == {
        "substitutions": 3, "deletions": 0, "insertions": 0, "words": 7, "runaway": 0,
    }  # fmt: skip
    assert total("asr.wer", [("a b c d", "a b"), ("e", "e f g")]) == 4 / 5


@pytest.mark.parametrize(
    ("reference", "said", "errors"),
    [
        ("I've twenty-one colours", "i have 21 colors", 0),
        ("he paid $20 million", "He paid twenty million dollars.", 0),
        ("", "", 0),
        ("", "made up words", 3),
        ("three words here", "", 3),
        ("(laughs) hello", "Hello!", 0),
    ],
)
def test_word_errors(reference, said, errors):
    found = counts("asr.wer", said, reference)
    assert found["substitutions"] + found["deletions"] + found["insertions"] == errors


def test_nothing_said_to_nothing_is_no_error():
    assert rate({}) == total("asr.wer", [("", "")]) == 0.0
    assert scorer("asr.wer").rule("oh", item("")).value == 1.0


@pytest.mark.parametrize(
    ("text", "characters"),
    [
        ("今天，天气很好。", "今天天气很好"),
        ("聽說這裡很熱鬧", "听说这里很热闹"),
        ("１２点", "十二点"),
        ("12.5度", "十二点五度"),
        ("涨了50%", "涨了百分之五十"),
        ("2008年8月", "二零零八年八月"),
        ("1,234人", "一千二百三十四人"),
        ("打0571", "打零五七一"),
        ("13912345678", "一三九一二三四五六七八"),
        ("用 iPhone 拍", "用iphone拍"),
        ("", ""),
    ],
)
def test_chinese_is_simplified_spelled_out_and_bare(text, characters):
    assert "".join(chinese(text)) == characters


def test_character_errors_by_hand():
    assert counts("asr.cer", "今天天气真好啊", "今天天气很好。") == {
        "substitutions": 1, "deletions": 0, "insertions": 1, "words": 6, "runaway": 0,
    }  # fmt: skip
    pairs = [("甲乙丙", "甲丙"), ("一二三四五", "12345")]
    assert total("asr.cer", pairs) == (1 + 4) / 8  # 12345 has four characters more: 万千百十


def test_mixed_speech_counts_characters_and_words():
    assert mixed("我 use 這個 Python-3 套件") == ["我", "use", "这", "个", "python", "3", "套", "件"]
    found = counts("asr.mer", "我用这个 python 三套件", "我 use 这个 Python 套件")
    assert (found["words"], found["substitutions"], found["insertions"]) == (7, 1, 1)
    assert found["words"] != len(english("我 use 这个 Python 套件"))  # nor is it jiwer's match error rate


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("hello world", "hello world"),
        ('{"content": "hello world"}', "hello world"),
        ('```json\n{"content": "hello"}\n```', "hello"),
        ('{"content": "cut of', "cut of"),
        ('{"content": "it is {}"}', "it is {}"),
        ('{"text": "other"}', '{"text": "other"}'),
        ("<think>it says bye</think>\nhello", "hello"),
        ('"hello"', "hello"),
        ("“你好”", "你好"),
        ("『「你好」』", "你好"),
        ('"a" and "b"', '"a" and "b"'),
        ("'tis the season", "'tis the season"),
        ("", ""),
        ('"', '"'),
    ],
)
def test_what_is_wrapped_around_a_transcript_goes(reply, said):
    assert transcript(reply) == said


def test_of_several_references_the_nearest_counts():
    assert counts("asr.wer", "he is here", "she was there", "he is here now")["deletions"] == 1


def test_a_runaway_is_counted_and_kept():
    found = counts("asr.wer", "la " * 50, "la la")
    assert (found["insertions"], found["runaway"]) == (48, 1)
    assert counts("asr.wer", "la " * 20, "la la")["runaway"] == 0


def test_an_unfinished_reply_leaves_out_every_word():
    found = score(scorer("asr.wer"), item("three words here"), Reply("...", "three words here", closed=False))
    assert (found.counts["deletions"], found.value, found.how) == (3, 1.0, "unfinished")


@pytest.mark.parametrize("name", ["asr.wer", "asr.cer", "asr.mer"])
def test_transcripts_of_any_text_are_counted(name):
    rng = random.Random(2)
    signs = "aB 7,.%年点万年-'\"{}\\[]<>三Ω\u200b\ud800٣½é\n"
    for _ in range(300):
        said, reference = ("".join(rng.choice(signs) for _ in range(rng.randrange(25))) for _ in range(2))
        found = scorer(name).rule(said, item(reference))
        assert found.value is not None and 0 <= found.value <= 1 and scorer(name).total(found.counts) >= 0


@pytest.mark.parametrize("loop", ["1" * 9_000, "one " * 9_000, "decillion " * 300, "9" * 5_000 + "% of it"])
def test_a_loop_of_numbers_is_counted(loop):
    assert counts("asr.wer", loop, "one")["words"] == 1


def test_the_lower_the_better():
    assert all(scorer(name).error for name in ("asr.wer", "asr.cer", "asr.mer"))


# URO-Bench's Repeat


@pytest.mark.parametrize(
    ("reference", "said", "lang", "credit"),
    [
        ("the cat sat", "The cat sat.", "en", 1.0),
        ("the cat sat down", "the cat sat up", "en", 0.75),
        ("cat dog sun moon", "cat dog", "en", 0.0),  # two errors over the two words of the reply
        ("cat dog", "cat dog sun moon", "en", 0.5),  # and over its four
        ("the cat", "", "en", 0.0),
        ("今天天气很好。", "今天，天气很好", "zh", 1.0),
        ("一共12个", "一共十二个", "zh", 1.0),
        ("今天天气", "今天下雨", "zh", 0.5),
        ("今天天气", "明儿下雨", "zh", 0.0),
    ],
)
def test_repeating_counts_to_a_half(reference, said, lang, credit):
    found = scorer("uro.repeat").rule(said, Item("u", (), Wording((reference,), "wer"), lang=lang))
    assert found.value == pytest.approx(credit, abs=1e-12)  # one minus a quotient


def test_the_mean_is_what_the_authors_print():
    """ok_rate x (1 - mean rate of the ok ones), of evaluate.py."""
    pairs = [("a b c d", "a b c d"), ("a b c d", "a b c x"), ("a b c d", "x y z"), ("a b", "a b")]
    values = [scorer("uro.repeat").rule(said, item(reference)).value for reference, said in pairs]
    rates = [1 - value for value in values if value]
    assert sum(values) / 4 == pytest.approx(len(rates) / 4 * (1 - sum(rates) / len(rates)), abs=1e-12)
