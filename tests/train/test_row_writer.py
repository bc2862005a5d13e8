"""Written rows read back as the same question, whatever spelling they came in."""

import pytest

from mlx_audio_r1.prompt import AudioPart, render
from mlx_audio_r1.train.row_writer import row_as_json, write_rows
from mlx_audio_r1.train.rows import read_rows
from tests.train.data_sets import write_rows as write_lines

TEXT, SOUND = {"type": "text", "text": "Which?"}, {"type": "audio", "audio": "clips/a.wav"}
SPELLINGS = {
    "swift": {"messages": [{"role": "user", "content": "<audio>Which?"}], "audios": ["a.wav"]},
    "factory": {"conversations": [{"from": "human", "value": "One\n<audio>\nTwo\n\n<audio>"},
                                  {"from": "gpt", "value": "two"}], "audios": ["a.wav", "b.wav"]},
    "parts": {"messages": [{"role": "user", "content": [TEXT, TEXT, SOUND, SOUND, TEXT]}]},
    "bytes": {"messages": [{"role": "user", "content": [
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}, TEXT]}]},
    "prompt": {"prompt": "<audio>Loud?", "audio": "a.wav", "completion": "yes", "answer": True},
    "preference": {"prompt": "Why?", "chosen": "a", "rejected": "b", "system": "Be short."},
    "tools": {"messages": [{"role": "user", "content": "Why?"}], "tools": '[{"name": "f"}]'},
    "history": {"messages": [{"role": "user", "content": "Hm?"},
                             {"role": "assistant", "content": "<audio> is", "reasoning": "so", "loss": False},
                             {"role": "tool", "content": "\n"}, {"role": "user", "content": "\n<audio>\n"}],
                "audios": ["https://x.org/a.wav"], "solution": "B", "options": ["A. x", "B. y"]},
}  # fmt: skip


def asked(row):
    """The segments of its prompt, paths made plain."""
    found = render([turn.message for turn in row.history], tools=row.tools)
    return [str(s.source).replace("/./", "/") if isinstance(s, AudioPart) else s for s in found]


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_written_row_asks_what_the_row_asked(tmp_path, name):
    (row,) = read_rows(write_lines(tmp_path / "in/train.jsonl", [SPELLINGS[name]]))
    assert write_rows(tmp_path / "out/train.jsonl", [row_as_json(row, passed=3)]) == 1
    (again,) = read_rows(tmp_path / "out/train.jsonl")
    assert asked(again) == asked(row) and again.kind == "prompt"
    assert [turn.loss for turn in again.history] == [turn.loss for turn in row.history]
    assert again.columns == {**row.columns, "passed": 3}


def test_a_reply_and_a_rejected_one_are_written_behind_it(tmp_path):
    (row,) = read_rows(write_lines(tmp_path / "train.jsonl", [SPELLINGS["swift"]]))
    write_rows(tmp_path / "out.jsonl", [row_as_json(row, reply="<think>\nx\n</think>\ny", rejected="z")])
    (again,) = read_rows(tmp_path / "out.jsonl")
    assert (again.reply, again.rejected) == ("<think>\nx\n</think>\ny", "z") and asked(again) == asked(row)
