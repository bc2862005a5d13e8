"""Judges' scorers: what is asked, and some hundreds of constructed replies read as their authors read them.

A case is made of a template and a mark; what it should come to is worked out beside it, from that alone.
"""

import itertools
import json

import pytest

from mlx_audio_r1.evaluate.judge_words import Words, filled
from mlx_audio_r1.evaluate.scorers import scorer
from mlx_audio_r1.evaluate.scorers.judged_reading import UNREADABLE
from mlx_audio_r1.evaluate.scorers.judged_wildspeech import is_english
from mlx_audio_r1.evaluate.scorers.mmaupro_instructions import RULES, rule
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.judged import Judged
from mlx_audio_r1.tasks.reply import Reply

OPEN = Item("u", (), Judged(("Rome.",), ("- names Rome",)), ref={"transcript": "Which city?", "question": ""})
ANSWER = Reply("I think.", "Rome it is.")
UNREAD = "unread"  # expected: worth nothing, and counted
LEFT_OUT = "left out"  # expected: in no denominator


def read(name, replies, item=OPEN, reply=ANSWER):
    return scorer(name).read(item, reply, replies)


def check(score, expected):
    if expected == UNREAD:
        assert (score.value, score.parsed) == (0.0, None) and score.counts[UNREADABLE] >= 1
    elif expected == LEFT_OUT:
        assert (score.value, score.parsed) == (None, None)
    else:
        # sums of a few marks in another order: a few units in the last place
        assert score.value == pytest.approx(expected, abs=1e-12) and score.parsed is not None


# ---- one word: Big Bench Audio, SPQA

WORD_FORMS = ("{}", "{}.", "**{}**", " {}\n", "```\n{}\n```", "<think>{other}? no.</think>{}", "Verdict: {}")
BOTH_OR_NONE = ("{} or {other}", "{other}, no: {}", "", "I cannot say.", "{}LY", "<think>{}</think>")


def word_cases(name, right, wrong):
    for form, (word, other) in itertools.product(WORD_FORMS, ((right, wrong), (wrong, right))):
        for said in (word, word.lower(), word.capitalize()):
            yield name, form.format(said, other=other), float(word == right)
    for form, (word, other) in itertools.product(BOTH_OR_NONE, ((right, wrong), (wrong, right))):
        yield name, form.format(word, other=other), UNREAD


WORDS = [*word_cases("bba.judge", "CORRECT", "INCORRECT"), *word_cases("spqa.judge", "YES", "NO")]


@pytest.mark.parametrize(("name", "said", "expected"), WORDS)
def test_one_word_is_read_where_there_is_one(name, said, expected):
    check(read(name, [said]), expected)


def test_incorrect_is_not_correct_and_an_equal_answer_asks_nobody():
    assert read("bba.judge", ["INCORRECT"]).value == 0
    same = Reply("", "rome")
    assert scorer("spqa.judge").prompts(OPEN, same, Words("{text2}")) == []
    assert read("spqa.judge", [], reply=same).value == 1
    labelled = Item("u", (), Judged(("It is slow.",)), extra={"label": "slow"})
    assert scorer("spqa.judge").prompts(labelled, Reply("", "Slow!"), Words("{text2}")) == []


# ---- WildSpeech: Score: [n]

SCORE_FORMS = {  # form -> is it read?
    "Good.\n\nScore: {}": True, "Score: [{}]": True, "**Score: {}**": True, "Score: {}/10": True,
    "Score: {}.5": True, "Score: {}\nScore: 1": True, "<think>Score: 2</think>Score: {}": True,
    "Score:{}": False, "score: {}": False, "Score: **{}**": False, "Rating: {}": False, "Score: [ {} ]": False,
}  # fmt: skip
MARKS = [(form.format(mark), mark / 10 if is_read else UNREAD)
         for (form, is_read), mark in itertools.product(SCORE_FORMS.items(), range(1, 11))]  # fmt: skip


MARKS += [(said, UNREAD) for said in ("Score: 0", "Score: 11", "")]


@pytest.mark.parametrize(("said", "expected"), MARKS)
def test_the_first_score_counts(said, expected):
    check(read("wildspeech.judge", [said]), expected)


@pytest.mark.parametrize(("text", "english"), [
    ("Rome.", True), ("罗马是意大利的首都。", False), ("Rome 罗马", True), ("罗马很大 Rome", True),
    ("罗马很大的 Roma", False), ("Рим", False), ("42", True), ("", True), ("C'est Rome.", True),
    ("ローマです ok", False),
])  # fmt: skip
def test_a_reply_that_is_not_english_has_the_least_mark(text, english):
    assert is_english(text) is english
    score = read("wildspeech.judge", ["Score: 9"], reply=Reply("", text))
    assert score.value == (0.9 if english else 0.1)


# ---- JSON: captions, dialogue, conversations

FENCES = ("{}", "```json\n{}\n```", "```\n{}\n```", "Here it is:\n{}", "{} I am sure.",
          "<think>{{}}</think>\n{}")  # fmt: skip
MARK_01 = {"0": 0.0, "0.5": 0.5, "1": 1.0, "1.0": 1.0, '"0.5"': 0.5, "0.25": 0.25, "1e-1": 0.1}
NO_MARK = ("1.5", f"1{'0' * 400}", "-0.1", "true", "null", '"half"', "[]", "NaN", "{}")
DIALOGUE = [(fence.format(f'{{"score": {text}, "reason": "x {{y}}"}}'), mark)
            for fence, (text, mark) in itertools.product(FENCES, MARK_01.items())]  # fmt: skip
DIALOGUE += [(f'{{"score": {text}}}', UNREAD) for text in NO_MARK]
NO_OBJECT = ("", "0.5", "score: 1", "[0.5]", '{"mark": 1}', '{"score": 1', "{" * 9000)
DIALOGUE += [(said, UNREAD) for said in NO_OBJECT]


@pytest.mark.parametrize(("said", "expected"), DIALOGUE)
def test_a_mark_of_dialogue_is_a_number_of_json(said, expected):
    check(read("du.judge", [said]), expected)


def caption(overall, speakers, right=True):
    """A judge's reply; speakers: their fields' marks."""
    fields = [{name: {"score": mark, "reason": ""} for name, mark in marks.items()} for marks in speakers]
    given = [{"speaker_index": n, "field_scores": one, "average_score": 0.0}
             for n, one in enumerate(fields, start=1)]  # fmt: skip
    return json.dumps({"multi_speaker_judgment_correct": right, "multi_speaker_judgment_reason": "x",
                       "overall_score": overall, "speakers": given})  # fmt: skip


LABELS = ({"gender": "女", "pitch": "高", "emotion": "无法判断"},
          {"gender": "男", "pitch": "低", "emotion": "无"})  # fmt: skip
CAPTION = Item("u", (), Judged(), ref={"speakers": list(LABELS), "several": True})
CAPTIONS = [  # judge's reply, overall mark, mark added up from the fields
    (caption(0.8, [{"gender": 1, "pitch": 0.5, "emotion": 0}, {"gender": 1, "pitch": 0, "emotion": 0.5}]), 0.8,
     (0.75 + 0.5) / 2),
    (caption(0.4, [{"gender": 1, "pitch": 1}]), 0.4, (1 + 0) / 2),  # the second speaker is left out
    (caption(0.9, [{"gender": 1, "pitch": 1}], right=False), 0.0, 0.0),
    (caption(1.2, [{"gender": 1, "pitch": 1}, {"gender": 1}]), UNREAD, 1.0),
    (caption(None, [{"gender": 2}, {"gender": "x"}]), UNREAD, UNREAD),
    (caption(0.5, []), 0.5, UNREAD),
    (caption("0.5", [{"gender": "0.5"}, {"gender": 0.5}]), 0.5, 0.5),
    (f"```json\n{caption(0.25, [{'gender': 0.5}, {'gender': 0}])}\n```", 0.25, 0.25),
    (caption(0.5, [{"gender": 1, "made_up": 0}, {"gender": 0}]), 0.5, 0.5),
    ('{"multi_speaker_judgment_correct": "yes", "overall_score": 1}', UNREAD, UNREAD),
    ('{"overall_score": 1, "speakers": []}', UNREAD, UNREAD), ("很好", UNREAD, UNREAD), ("[]", UNREAD, UNREAD),
    ('{"multi_speaker_judgment_correct": true, "overall_score": 1, "speakers": {"1": 1}}', 1.0, UNREAD),
    ('{"multi_speaker_judgment_correct": true, "overall_score": 0, "speakers": [{"speaker_index": 2,'
     ' "field_scores": {"gender": 1}}, {"speaker_index": 1, "field_scores": {"gender": 0.5}}]}', 0.0, 0.75),
]  # fmt: skip


@pytest.mark.parametrize(("said", "overall", "added"), CAPTIONS)
def test_captions_have_the_judges_sum_and_ours(said, overall, added):
    check(read("caption.judge", [said], CAPTION), overall)
    check(read("caption.recomputed", [said], CAPTION), added)


def test_a_caption_is_shown_with_its_labels_and_braces_stay():
    words = Words('{num_speakers}{ground_truth}|{model_output}|{speakers_str}|{"score": 0}')
    (text,) = scorer("caption.judge").prompts(CAPTION, Reply("", "两个人 {speakers_str}"), words)
    assert text.startswith("2多人|两个人 {speakers_str}|speaker 1:\n- gender: 女")
    assert text.endswith('- emotion: 无|{"score": 0}')


MET = ('{{"explanation": "x", "criteria_met": {}}}',
       '```json\n{{"criteria_met": {}, "explanation": "a {{b}}"}}\n```')  # fmt: skip
VERDICTS = [verdicts for n in (1, 2, 3) for verdicts in itertools.product((True, False), repeat=n)]
POINTS = [(tuple(form.format(json.dumps(v)) for v in verdicts), verdicts)
          for form in MET for verdicts in VERDICTS]  # fmt: skip
BAD_POINTS = ('{"criteria_met": "true"}', '{"criteria_met": 1}', "true", "", '{"criteria_met": null}', "met")


@pytest.mark.parametrize(("said", "verdicts"), POINTS)
def test_a_conversation_passes_with_every_point(said, verdicts):
    check(read("audiomc.judge", said), float(all(verdicts)))
    check(read("audiomc.ars", said), sum(verdicts) / len(verdicts))


@pytest.mark.parametrize("bad", BAD_POINTS)
def test_a_point_that_cannot_be_read_is_not_met(bad):
    said = ['{"criteria_met": true}', bad]
    apr, ars = read("audiomc.judge", said), read("audiomc.ars", said)
    assert (apr.value, ars.value) == (0.0, 0.5) and apr.counts == ars.counts == {UNREADABLE: 1}
    check(read("audiomc.ars", [bad]), UNREAD)


def test_a_judge_sees_the_whole_conversation_and_one_point():
    turns = [{"role": "user", "text": "Hi «rubric_item»"}]
    item = Item("u", (), Judged(rubric=("is short", "is kind")), ref={"conversation": turns})
    first, second = scorer("audiomc.judge").prompts(item, ANSWER, Words("«conversation_history»|«rubric_item»"))
    assert first == "user: Hi «rubric_item»\n\nassistant: Rome it is.|is short" and second.endswith("|is kind")


# ---- MMAR-Rubrics

RUBRIC = [{"name": f"C{n}", "scoring_point": f"1 if {n}.", "note": "", "choices": [0, 1]} for n in range(5)]
MMAR = Item("u", (), Choice(("No", "Yes"), (1,)), ref={"question": "So?", "thinking": "Up.", "rubric": RUBRIC})


def rater(points, n=5):
    marks = [{"name": f"C{k}", "score": int(k < points), "justification": "x"} for k in range(n)]
    return json.dumps(marks)


FIVE = [(0, 0, 0, 0, 0), (5, 5, 5, 5, 5), (0, 1, 2, 3, 4), (5, 0, 5, 0, 5), (1, 1, 5, 1, 1), (4, 2, 3, 3, 0)]


@pytest.mark.parametrize("points", [p for five in FIVE for p in sorted(set(itertools.permutations(five)))[:6]])
@pytest.mark.parametrize("form", ["{}", "```json\n{}\n```", "Marks: {} done"])
def test_the_middle_three_of_five_raters_count(points, form):
    said = [form.format(rater(p)) for p in points]
    check(read("mmar.rubrics", said, MMAR), sum(sorted(points)[1:4]) / 3 / 5)


@pytest.mark.parametrize("bad", [
    "", "5", rater(5, 4), rater(5, 6), rater(2).replace('"score": 1', '"score": 2'), "[{}]",
    rater(2).replace('"score"', '"mark"'), rater(2).replace("0,", '"0",'), '{"name": "C0", "score": 1}',
])  # fmt: skip
def test_a_rater_who_cannot_be_read_leaves_the_item_out(bad):
    score = read("mmar.rubrics", [rater(5)] * 4 + [bad], MMAR)
    check(score, LEFT_OUT)
    assert score.counts == {UNREADABLE: 1} and score.how == "1 of 5 raters cannot be read"


def test_a_wrong_answer_is_not_put_before_the_raters():
    rubrics = scorer("mmar.rubrics")
    assert rubrics.prompts(MMAR, Reply("t", "No"), rubrics.words) == []
    assert read("mmar.rubrics", [], MMAR, Reply("t", "No")).value == 0
    assert len(rubrics.prompts(MMAR, Reply("t", "Yes"), rubrics.words)) == 1
    check(read("mmar.rubrics", [], Item("u", (), MMAR.target)), LEFT_OUT)  # the file of 2025 has no rubrics


# ---- MMAU-Pro

NAMES = ("CORRECTNESS", "RELEVANCE", "COMPLETENESS", "CLARITY", "OVERALL")


def sheet(marks, form="{}: {} - fine"):
    given = zip(NAMES, marks, strict=True)
    return "\n".join(form.format(name, mark) for name, mark in given if mark is not None)


SHEETS = [
    ((5, 4, 3, 2, 4.5), 4.5), ((5, 5, 4, 4, 3), 4.5), ((1, 1, 1, 1, 3), 1.0), ((2, None, 2, 2, None), 2.25),
    ((None, None, None, None, 2), 2), ((5, 5, 5, 5, "[5]"), 5), ((4, 4, 4, 4, None), 4),
    ((9, 5, 5, 5, None), 4.5), ((1, 2, 3, 4, 1), 1), ((None,) * 5, 3),
]  # fmt: skip


@pytest.mark.parametrize(("marks", "overall"), SHEETS)
def test_what_is_not_found_is_three_and_said_so(marks, overall):
    score = read("mmaupro.open", [sheet(marks)])
    assert score.value == pytest.approx(overall / 5)
    missing = [name.lower() for name, mark in zip(NAMES, marks, strict=True)
               if not isinstance(mark, int | float) or mark > 5]  # fmt: skip
    named = [name for name in missing if name != "overall"]
    assert score.how == (f"official default 3 for {', '.join(named)}" if named else "overall mark")
    strict = read("mmaupro.open_strict", [sheet(marks)])
    check(strict, UNREAD if missing else marks[4] / 5)


@pytest.mark.parametrize("form", ["**{}:** {}", "{} - {}", "{} = {}"])
def test_marks_behind_stars_are_not_found(form):
    check(read("mmaupro.open_strict", [sheet((5, 5, 5, 5, 5), form)]), UNREAD)
    score = read("mmaupro.open", [sheet((5, 5, 5, 5, 5), form)])
    assert (score.value, score.parsed, score.counts) == (0.6, None, {UNREADABLE: 1})


INSTRUCTIONS = [  # kind, what it wants, a reply that obeys, one that does not
    ("Include Keywords", {"keywords": "cat, dog"}, "Cats and dogs.", "A cat."),
    ("Keyword Frequency", {"keyword": "dog", "N": 2}, "Dog, dog, dogs", "dog"),
    ("Forbidden Words", {"forbidden_words": "cat, dog"}, "A bird.", "A catalogue."),
    ("Number Paragraphs", {"N": 2}, "a *** b", "a *** b *** c"),
    ("Number Words (at least)", {"N": 2}, "a b", "a"), ("Number Words (at most)", {"N": 2}, "a b", "a b c"),
    ("Number Words (range)", {"N1": 2, "N2": 3}, "a b c", "a b c d"),
    ("Number Sentences (at least)", {"N": 2}, "One. Two.", "One at 3.5 kHz."),
    ("Number Sentences (at most)", {"N": 1}, "One at 3.5 kHz.", "One. Two."),
    ("Number Sentences (range)", {"N1": 1, "N2": 2}, "Is it? Yes!", "A. B. C."),
    ("Postscript", {"postscript_marker": "P.S."}, "x ps y", "x"),
    ("Number Placeholder", {"N": 2}, "[a] [b]", "[a]"), ("Number Bullets", {"N": 2}, "* a\n* b", "* a\n- b"),
    ("Title", {}, "<<A>> b", "<A> b"), ("Minimum Number Highlighted Section", {"N": 1}, "*a* b", "a b"),
    ("Multiple Sections", {"N": 2, "section_splitter": "SECTION"}, "SECTION a SECTION b", "a"),
    ("Repeat Prompt", {}, "SAY IT. It.", "It."), ("Two Responses", {}, "a ****** b", "a ****** A"),
    ("All Uppercase", {}, "ABC 1", "Abc"), ("All Lowercase", {}, "abc", "aBc"),
    ("All-capital Words (at least)", {"N": 1}, "a BC", "a b"),
    ("All-capital Words (at most)", {"N": 1}, "a BC", "DE BC"),
    ("All-capital Words (range)", {"N1": 1, "N2": 2}, "A B c", "a b c"),
    ("Start Checker", {"start_phrase": "Well, now"}, "well now!", "now well"),
    ("End Checker", {"end_phrase": "The end."}, "It is the end", "the end it is"),
    ("Quotation", {}, ' "a" ', '"a'), ("No Commas", {}, "a b", "a, b"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "told", "obeys", "fails"), INSTRUCTIONS)
def test_instructions_are_obeyed_or_not(kind, told, obeys, fails):
    item = Item("u", (), Judged(), ref={"question": "Say it."}, extra={"task_identifier": kind, "kwargs": told})
    assert (rule(obeys, item).value, rule(fails, item).value) == (1.0, 0.0)


def test_every_kind_of_instruction_has_a_case_and_an_unknown_one_is_not_obeyed():
    assert {kind for kind, *_ in INSTRUCTIONS} == set(RULES)
    item = Item("u", (), Judged(), extra={"task_identifier": "Sing", "kwargs": None})
    assert rule("la", item).value == 0 and "unknown" in rule("la", item).how


# ---- AIR-Bench chat

PAIRS = [((8, 6), (7, 9)), ((10, 10), (10, 10)), ((0, 0), (1, 2)), ((3, 9), (2, 4))]
BAD_LINES = ("8", "8  6", "8\n6", "8.0 6", "11 2", "8 6.", "eight six", "", "-1 5", "8, 6")


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_both_orders_are_averaged_and_the_model_is_second_then_first(first, second):
    said = [f"{first[0]} {first[1]}", f"<think>x</think>{second[0]} {second[1]}\n"]
    check(read("airbench.chat", said), (first[1] + second[0]) / 20)


@pytest.mark.parametrize("bad", BAD_LINES)
def test_a_line_of_another_form_leaves_its_order_out(bad):
    score = read("airbench.chat", ["8 6", bad])
    assert (score.value, score.counts) == (0.6, {UNREADABLE: 1})
    assert read("airbench.chat", [bad, "8 6"]).value == 0.8
    check(read("airbench.chat", [bad, bad]), LEFT_OUT)


def test_chat_shows_both_answers_in_both_orders():
    item = Item("u", (), Judged(("ref",)), ref={"question": "Q", "description": "D"})
    words = Words("XAudioX XQuestionX 1:XAssistant1X 2:XAssistant2X")
    asked = scorer("airbench.chat").prompts(item, Reply("", "own"), words)
    assert asked == ["D Q 1:ref 2:own", "D Q 1:own 2:ref"]


# ---- VoiceBench, URO-Bench

RATINGS = {"4": 4, " 5\n": 5, "3.5": 3.5, "[[2]]": 2, "I give [[1]].": 1, "<think>2</think>4": 4}
NO_RATING = ("four", "", "6", "0", "4/5", "Score: 4")


@pytest.mark.parametrize("three", list(itertools.combinations(RATINGS, 3)))
def test_three_marks_are_averaged(three):
    check(read("voicebench.open", list(three)), sum(RATINGS[text] for text in three) / 15)


@pytest.mark.parametrize("bad", NO_RATING)
def test_a_mark_that_is_none_is_counted_and_the_others_averaged(bad):
    score = read("voicebench.open", ["4", bad, "5"])
    assert score.value == pytest.approx(0.9) and score.counts == {UNREADABLE: 1}
    check(read("voicebench.open", [bad] * 3), UNREAD)


TOLD = {"Yes": True, "yes": True, "YES ": True, "No": False, "no": False, "Yes.": None, "maybe": None}


@pytest.mark.parametrize("three", list(itertools.combinations_with_replacement(TOLD, 3)))
def test_most_of_three_have_to_say_yes(three):
    lowered = [text.strip().lower() for text in three]
    yes = lowered.count("yes")
    others = [lowered.count(one) for one in lowered if one != "yes"]
    score = read("voicebench.qa", list(three))
    assert score.value == float(yes > max(others, default=0))
    assert score.counts.get(UNREADABLE, 0) == sum(TOLD[text] is None for text in three)


def uro(mode, about=None):
    extra = {"mode": mode, "about": about}
    return Item("u", (), Judged(("4", "four")), ref={"transcript": "2 + 2?"}, extra=extra)


URO_SAID = ("Yes", "No", "yes", "Yes.")


@pytest.mark.parametrize("three", list(itertools.combinations_with_replacement(URO_SAID, 3)))
def test_uro_counts_each_yes(three):
    score = read("uro.judge", list(three), uro("qa"))
    assert score.value == pytest.approx(three.count("Yes") / 3)
    assert score.counts.get(UNREADABLE, 0) == sum(text not in ("Yes", "No") for text in three)


@pytest.mark.parametrize(("mode", "mark", "about"), [("gs", "{style}", "a pirate"), ("ue", "{emotion}", "sad"),
                                                     ("ml", "{language}", "French")])  # fmt: skip
def test_uro_is_asked_by_its_mode(mode, mark, about):
    words = Words(parts={mode: f"{mark}|{{question}}|{{answer}}|{{reference}}"})
    prompts = scorer("uro.judge").prompts(uro(mode, about), ANSWER, words)
    assert prompts == [f"{about}|2 + 2?|Rome it is.|4 / four"]
    check(read("uro.judge", ["4", "5", "3"], uro(mode)), 0.8)


def test_an_empty_reply_of_uro_asks_nobody():
    assert scorer("uro.judge").prompts(uro("qa"), Reply("", " "), Words()) == []
    score = read("uro.judge", [], uro("qa"), Reply("", " "))
    assert (score.value, score.parsed) == (0.0, None)


# ---- all of them


def test_there_are_three_hundred_cases_and_more():
    assert len(WORDS) + len(MARKS) + len(DIALOGUE) + len(CAPTIONS) + len(POINTS) + len(BAD_LINES) > 300


PLAIN = ("bba.judge", "spqa.judge", "wildspeech.judge", "du.judge", "mmaupro.open", "airbench.chat",
         "voicebench.open", "voicebench.qa")  # fmt: skip
LONG = "9" * 5000
ODD = ("", "\x00", "{" * 5000, "[[[[", LONG, f'{{"score": {LONG}}}', "</think>", f"Score: {LONG}",
       f"{LONG} {LONG}", f"OVERALL: {LONG}", f"[[{LONG}]]")  # fmt: skip


@pytest.mark.parametrize("name", [*PLAIN, "caption.judge", "caption.recomputed"])
@pytest.mark.parametrize("said", ODD, ids=range(len(ODD)))
def test_no_judge_makes_a_scorer_fail(name, said):
    item = CAPTION if name.startswith("caption") else OPEN
    score = read(name, [said] * max(2, scorer(name).raters), item)
    assert score.value is None or 0 <= score.value <= 1


def test_our_words_show_the_reply_and_leave_no_mark_behind():
    for name in PLAIN:
        one = scorer(name)
        for text in one.prompts(OPEN, Reply("", "The {reply} «itself»"), one.words):
            assert "The {reply} «itself»" in text and not any(mark in text for mark in one.must)


def test_marks_inside_replies_are_no_marks():
    assert filled("{a}{b}{c}", {"{a}": "{b}", "{b}": "x"}) == "{b}x{c}"
