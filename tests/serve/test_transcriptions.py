"""/v1/audio/transcriptions: the forms, the formats, what is refused."""

import re

import openai
import pytest

from mlx_audio_r1.serve.rows import Done
from mlx_audio_r1.serve.transcription import WRITERS, Segment, parse_transcription
from tests.serve.conftest import PATIENCE, load_tiny, serving, wav

URL = "/v1/audio/transcriptions"


CLIP = ("clip.wav", wav(1.0))


def send(served, data=None, file=CLIP, **options):
    fields = {"max_tokens": "12", "model": "whisper-1", **(data or {})}
    return served.http.post(URL, data=fields, files={} if file is None else {"file": file}, **options)


def test_the_openai_package_gets_the_text(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE) as client:
        plain = client.audio.transcriptions.create(
            model="whisper-1",
            file=("a.wav", wav(1.0)),
            extra_body={"max_tokens": 12},
            language="en",
            prompt="Ann",
        )
        text = client.audio.transcriptions.create(
            model="whisper-1",
            file=("a.wav", wav(1.0)),
            extra_body={"max_tokens": 12},
            response_format="text",
            language="en",
            prompt="Ann",
        )
        verbose = client.audio.transcriptions.create(
            model="whisper-1",
            file=("a.wav", wav(1.0)),
            extra_body={"max_tokens": 12},
            response_format="verbose_json",
            timestamp_granularities=["segment"],
            language="en",
            prompt="Ann",
        )
    assert plain.text and text == plain.text + "\n" and verbose.text == plain.text
    assert verbose.duration == 1.0 and verbose.language == "en"
    assert [(s.start, s.end, s.text) for s in verbose.segments] == [(0.0, 1.0, plain.text)]
    assert plain.usage.input_token_details.audio_tokens == 13 and plain.usage.output_tokens == 12


def test_long_files_come_in_the_pieces_the_encoder_gets():
    def short_chunks():
        r1 = load_tiny()
        r1.chunk_seconds = 2.0
        return r1

    with serving(short_chunks) as server:
        body = send(server, {"response_format": "verbose_json"}, ("a.wav", wav(5.0))).json()
        srt = send(server, {"response_format": "srt"}, ("a.wav", wav(5.0))).text
    assert [(s["start"], s["end"]) for s in body["segments"]] == [(0, 2), (2, 4), (4, 5)]
    assert body["text"] == " ".join(s["text"] for s in body["segments"]) and body["times"] == "pieces"
    assert re.findall(r"^\d\d:.*", srt, re.M) == [
        "00:00:00,000 --> 00:00:02,000",
        "00:00:02,000 --> 00:00:04,000",
        "00:00:04,000 --> 00:00:05,000",
    ]


def test_subtitles_byte_for_byte():
    done = Done("stop", None, 1, 1, 0, 1, 1.0)
    segments = [Segment(0.0, 25.0, "One --> two\n\nthree", done), Segment(3599.9994, 3661.5, "four", done)]
    request = parse_transcription({})
    assert WRITERS["srt"][1](segments, request).decode() == (
        "1\n00:00:00,000 --> 00:00:25,000\nOne -> two\nthree\n\n2\n00:59:59,999 --> 01:01:01,500\nfour\n\n"
    )
    assert WRITERS["vtt"][1](segments, request).decode() == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:25.000\nOne -> two\nthree\n\n00:59:59.999 --> 01:01:01.500\nfour\n\n"
    )


@pytest.mark.parametrize(
    ("data", "file", "param"),
    [
        ({}, None, "file"),
        ({}, ("a.wav", b""), "file"),
        ({}, ("a.wav", b"words, not sound"), "file"),
        ({"response_format": "xml"}, ("a.wav", wav(0.2)), "response_format"),
        ({"temperature": "hot"}, ("a.wav", wav(0.2)), "temperature"),
        ({"temperature": "nan"}, ("a.wav", wav(0.2)), "temperature"),
        ({"max_tokens": "0"}, ("a.wav", wav(0.2)), "max_tokens"),
        ({"stream": "true"}, ("a.wav", wav(0.2)), "stream"),
        ({"timestamp_granularities[]": "word"}, ("a.wav", wav(0.2)), "timestamp_granularities[]"),
        ({"include[]": "logprobs"}, ("a.wav", wav(0.2)), "include[]"),
        ({"nonsense": "1"}, ("a.wav", wav(0.2)), "nonsense"),
        ({"prompt": "x" * 3000}, ("a.wav", wav(0.2)), "prompt"),
    ],
)
def test_what_is_refused_is_named(served, data, file, param):
    response = send(served, data, file)
    if file is None:  # without a file httpx sends no multipart form
        response = served.http.post(URL, files={"model": (None, "x")})
    assert response.status_code == 400 and response.json()["error"]["param"] == param


def test_a_file_is_not_a_text_and_a_text_is_not_a_file(served):
    response = served.http.post(URL, files={"file": (None, "text")})
    assert response.status_code == 400 and response.json()["error"]["param"] == "file"
    two = served.http.post(URL, files=[("file", ("a.wav", wav(0.2))), ("file", ("b.wav", wav(0.2)))])
    assert two.status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "multipart/form-data"},
        {"content-type": "multipart/form-data; boundary=abc"},
        {"content-type": "application/json"},
        {},
    ],
)
def test_broken_forms(served, headers):
    response = served.http.post(
        URL, content=b"--abc\r\nContent-Disposition: nonsense\r\n\r\nx", headers=headers
    )
    assert response.status_code in (400, 415) and response.json()["error"]["message"]
