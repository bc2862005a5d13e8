"""The page holds everything it needs, shows text as text, and its plots take the page's colours."""

import math
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile

from mlx_audio_r1.report import page, plots, samples
from mlx_audio_r1.report.page import Html, Section
from mlx_audio_r1.report.plots import Line
from mlx_audio_r1.report.samples import Reply, Sample

NASTY = '<script>alert("1")</script> & \'quotes\''
URI = "data:audio/wav;base64,UklGRg=="
VOID = {"meta", "br"}
FETCHING = {"src", "href", "xlink:href", "srcset", "data", "action", "poster"}


class Reader(HTMLParser):
    """Which elements there are, and that each is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.sources: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.sources += [value for name, value in attrs if name in FETCHING]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def curve(name="loss", n=5, scale=1.0):
    return Line(name, range(n), [scale * 0.9**i for i in range(n)])


def a_page():
    sound = Sample("valid.jsonl:1", [], NASTY, NASTY, [Reply("before", NASTY, NASTY), Reply("after", "", "b")])
    return page.page(NASTY, NASTY, [
        Section("Facts", [page.facts({NASTY: NASTY, "none": None, "on": True, "n": 12_345, "x": 1e-4}),
                          page.tiles({"loss": 0.5}), page.note(NASTY), page.note(NASTY, warning=True),
                          page.grid(["", "rows"], [["train", 3], [NASTY, {"a": [1, 2.5]}]])]),
        Section("Plots", [page.plots([("Loss", plots.line_plot([curve(), curve(NASTY)], NASTY)),
                                      ("Rate", plots.line_plot([curve()], "rate"))])]),
        Section("Samples", samples.samples([sound])),
        Section("Left out", []),
    ])  # fmt: skip


def test_the_page_is_whole_and_asks_for_nothing_outside_itself():
    text = a_page()
    read = Reader(text)
    assert read.open == [] and "script" not in read.tags and "link" not in read.tags
    assert all(source.startswith(("#", "data:")) for source in read.sources)
    assert "://" not in text and "@import" not in text and re.findall(r"url\((?!#)", text) == []
    assert "default-src 'none'" in text
    assert len(set(read.ids)) == len(read.ids) > 0  # though there are two drawings
    assert "Left out" not in text


def test_what_is_given_as_text_is_shown_as_text():
    text = a_page()
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 10


def test_html_stays_html_and_text_added_to_it_is_escaped():
    bold = page.tag("b", "1 < 2", class_="x", data_y='"')
    assert bold == '<b class="x" data-y="&quot;">1 &lt; 2</b>'
    assert page.tag("p", bold) == f"<p>{bold}</p>"
    assert bold + "<" == f"{bold}&lt;" and isinstance(bold + "<", Html)
    assert page.escape("\ud83d") == "?"  # half of a pair, as a cut-off reply may end


@pytest.mark.parametrize(("value", "words"), [
    (None, "–"), ("", "–"), (True, "yes"), (1234567, "1,234,567"), (0.00012345, "0.0001234"),  # noqa: RUF001
    (123456.7, "123,457"), ({"rank": 16, "keys": None}, "rank: 16, keys: –"), (["a", 2], "a, 2"),  # noqa: RUF001
    (math.nan, "nan"), ({}, "–"),  # noqa: RUF001
])
def test_values_are_written_for_people(value, words):
    assert page.shown(value) == words


# ---- plots


def test_plots_take_colours_and_font_of_the_page():
    svg = plots.line_plot([curve(), curve("other")], "a label")
    assert svg.startswith('<svg role="img" aria-label="a label"')
    assert {"var(--one)", "var(--two)", "var(--ink)", "var(--grid)", "var(--font)"} <= set(
        re.findall(r"var\(--\w+\)", svg))
    assert not re.search(r"#[0-9a-f]{6}\b", svg) and "DejaVu" not in svg  # no colour or font of its own
    assert ">other</text>" in svg  # text stays text
    assert svg == plots.line_plot([curve(), curve("other")], "a label")


@pytest.mark.parametrize("n", [0, 1, 2, 41, 500])
@pytest.mark.parametrize("axis", plots.AXES)
def test_any_number_of_values_can_be_drawn(n, axis):
    assert Reader(plots.line_plot([curve(n=n)], "x", axis)).open == []


@pytest.mark.parametrize("n", [3, 100])
def test_values_that_are_no_numbers_are_marked(n):
    values = [math.nan, *np.linspace(1, 2, n), math.inf]
    svg = plots.line_plot([Line("loss", range(n + 2), values)], "x", "log")
    assert svg.count("var(--warn)") == 2
    assert "no finite value" in plots.line_plot([Line("loss", [1], [math.nan])], "x")


def test_a_spike_does_not_move_the_line_through_noisy_values():
    values = np.array([1.0, 2.0] * 50)
    values[40] = 1e9
    assert plots._medians(values).max() <= 2.0
    assert plots._noisy(np.array([1.0, 2.0] * 50), np.full(100, 1.5))
    assert not plots._noisy(np.linspace(0, 1, 100), plots._medians(np.linspace(0, 1, 100)))


@pytest.mark.parametrize(("value", "words"), [
    (0, "0"), (1e-4, "1e-4"), (2.5e-5, "2.5e-5"), (0.02, "0.02"), (12_000, "12,000"), (3e6, "3e6"),
    (-1.5, "-1.5"),
])
def test_ticks_are_short(value, words):
    assert plots.tick(value) == words


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch):
    assert plots.missing() is None
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'mlx-audio-r1[report]'" in plots.missing()


# ---- sounds


def with_sound(path):
    return str(samples.samples([Sample("x", [path], "What?", "", [Reply("before", "", "a")])])[0])


def test_a_small_sound_is_in_the_page_and_a_large_one_is_named(tmp_path):
    small, large = tmp_path / "small.wav", tmp_path / "large.flac"
    soundfile.write(small, np.zeros(1_600), 16_000)
    soundfile.write(large, np.random.default_rng(0).uniform(-1, 1, 700_000), 16_000)
    assert large.stat().st_size > samples.CLIP_BYTES
    assert 'src="data:audio/wav;base64,UklGR' in with_sound(small)
    for path in (large, tmp_path / "missing.wav", tmp_path, tmp_path / "notes.txt"):
        html = with_sound(path)
        assert "<audio" not in html and str(path) in html


def test_a_sound_that_stands_in_the_data_is_played_from_there():
    assert f'src="{URI}"' in with_sound(URI)
    for other in ("data:text/html;base64,AAAA", URI + "A" * 1_400_000):
        html = with_sound(other)
        assert "<audio" not in html and "a sound in the data itself" in html and len(html) < 1_000


def test_all_sounds_together_have_a_limit(tmp_path):
    path = tmp_path / "clip.wav"
    path.write_bytes(bytes(900_000))
    items = [Sample(str(i), [path], "", "", []) for i in range(30)]
    assert "".join(samples.samples(items)).count("<audio") == 20_000_000 // 900_000


@pytest.mark.parametrize(("answer", "expected", "same"), [
    ("A  bell.", "a bell", True), ("bell", "a bell", False), ("", "", False),
])
def test_only_an_equal_answer_is_marked(answer, expected, same):
    assert samples.same(answer, expected) is same
