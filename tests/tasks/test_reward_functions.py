"""Reward functions of a user's file: both signatures, weights, None, and every way to go wrong in one line."""

import sys

import numpy as np
import pytest

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.tasks.reward_functions import load_reward_functions, score

PROMPTS, COMPLETIONS = ["p", "q"], ["aa", "b"]
COLUMNS = {"solution": ["x", "y"], "problem_type": ["mcq", "number"], "level": [1, 2]}


def functions(folder, source, **options):
    path = folder / "rewards.py"
    path.write_text(source)
    return load_reward_functions(path, **options)


def scored(folder, source, **options):
    return score(functions(folder, source, **options), PROMPTS, COMPLETIONS, COLUMNS)


def refusal(folder, source, **options):
    """The one line of a refusal, without the folder."""
    with pytest.raises(TrainingError) as error:
        scored(folder, source, **options)
    text = str(error.value)
    assert "\n" not in text and text.startswith(str(folder / "rewards.py"))
    return text.removeprefix(f"{folder}/")


POSITIONAL = """
@register_reward_function()
def length(prompts, completions, answer, types=None):
    assert prompts == ["p", "q"] and answer == ["x", "y"] and types == ["mcq", "number"]
    return [float(len(c)) for c in completions]
"""
KEYWORD = """
def length(completions, **columns):
    assert columns["prompts"] == ["p", "q"] and columns["solution"] == columns["answer"] == ["x", "y"]
    assert columns["level"] == [1, 2] and columns["types"] == columns["type"] == ["mcq", "number"]
    return [len(c) for c in completions]
"""


@pytest.mark.parametrize("source", [POSITIONAL, KEYWORD])
def test_both_signatures_get_what_they_ask_for(tmp_path, source):
    assert scored(tmp_path, source).total == [2.0, 1.0]


@pytest.mark.parametrize(
    "head",
    ["f(completions, solution, **_)", "f(completions, level)", "f(prompts, completions, **kwargs)",
     "f(completions, *, answer)", "f(completions, missing=None)", "f(prompts, completions)",
     "f(prompts, completions, answer)", "f(p, c, a, t)", "f(prompts, completions, answer, types)"],
)  # fmt: skip
def test_signatures_people_write(tmp_path, head):
    assert scored(tmp_path, f"def {head}:\n    return [1, 2]\n").total == [1.0, 2.0]


def test_a_file_written_for_mlx_lm_lora_runs_unchanged_and_without_it(tmp_path):
    before = dict(sys.modules)
    source = f"from mlx_lm_lora.trainer.grpo_reward_functions import register_reward_function\n{POSITIONAL}"
    assert scored(tmp_path, source).total == [2.0, 1.0]
    assert {m for m in sys.modules if "lora" in m and m not in before} == set()


def test_registered_functions_count_alone_under_their_names(tmp_path):
    named = POSITIONAL.replace("function()", "function(name='size')")
    source = f"def helper(completions): return [9, 9]\n{named}"
    assert scored(tmp_path, source).by_name == {"size": [2.0, 1.0]}


def test_private_and_imported_functions_do_not_count(tmp_path):
    source = "from os.path import join\ndef _helper(completions): return 1\ndef f(completions): return [1, 1]\n"
    assert [f.name for f in functions(tmp_path, source)] == ["f"]


def test_a_class_stands_for_what_it_makes(tmp_path):
    source = (
        "@register_reward_function()\nclass Length:\n    def __call__(self, completions, **_): return [3, 4]\n"
    )
    assert scored(tmp_path, source).total == [3.0, 4.0]


THREE = """
def one(completions): return [1, None]
def two(completions): return [10, None]
def three(completions): return [None, None]
"""


def test_values_are_weighted_and_none_says_nothing(tmp_path):
    assert scored(tmp_path, THREE).total == [11.0, None]
    assert scored(tmp_path, THREE, weights=[2, 0.5, 1]).total == [7.0, None]
    assert scored(tmp_path, THREE, weights={"two": 0}).total == [1.0, None]
    assert scored(tmp_path, THREE, names=["two"], weights=[3]).total == [30.0, None]
    assert scored(tmp_path, THREE, names=["three"]).by_name == {"three": [None, None]}


@pytest.mark.parametrize(
    "values", ["(1, 2)", "[True, 2.0]", "iter([1, 2])", "numpy.array([1, 2])", "numpy.float32([1, 2])"]
)
def test_what_can_be_taken_for_numbers_is(tmp_path, values):
    assert np.allclose(scored(tmp_path, f"import numpy\ndef f(completions): return {values}\n").total, [1, 2])


RAISES = "def f(completions):\n    x = 1\n    return [1 / 0]\n"


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (RAISES, "rewards.py: function f: line 3: ZeroDivisionError: division by zero"),
        ("def f(completions):\n    raise KeyError\n", "rewards.py: function f: line 2: KeyError"),
        ("def f(completions):\n    raise ValueError('a\\nb')\n",
         "rewards.py: function f: line 2: ValueError: a b"),
        ("import sys\ndef f(completions):\n    sys.exit(3)\n", "rewards.py: function f: line 3: SystemExit: 3"),
        ("def f(completions, colour): pass\n",
         "rewards.py: function f: LookupError: it wants colour, which no row has as a column"),
        ("def f(completions): return [1]\n", "rewards.py: function f: returned 1 values for 2 completions"),
        ("def f(completions): return [1, 2, 3]\n",
         "rewards.py: function f: returned 3 values for 2 completions"),
        ("def f(completions): return None\n", "rewards.py: function f: returned NoneType, expected 2 numbers"),
        ("def f(completions): return 1.0\n", "rewards.py: function f: returned float, expected 2 numbers"),
        ("def f(completions): return 'ab'\n", "rewards.py: function f: returned str, expected 2 numbers"),
        ("def f(completions): return {1: 2, 3: 4}\n",
         "rewards.py: function f: returned dict, expected 2 numbers"),
        ("def f(completions): return [1, float('nan')]\n",
         "rewards.py: function f: returned nan for completion 1, expected a number or None"),
        ("def f(completions): return [float('inf'), 1]\n",
         "rewards.py: function f: returned inf for completion 0, expected a number or None"),
        ("def f(completions): return [1, '2']\n",
         "rewards.py: function f: returned '2' for completion 1, expected a number or None"),
        ("def f(completions): return [1, [2]]\n",
         "rewards.py: function f: returned [2] for completion 1, expected a number or None"),
        ("x = 1\n1 / 0\n", "rewards.py: line 2: ZeroDivisionError: division by zero while it is loaded"),
        ("exit(1)\n", "rewards.py: line 1: SystemExit: 1 while it is loaded"),
        ("import not_there_at_all\n",
         "rewards.py: line 1: ModuleNotFoundError: No module named 'not_there_at_all' while it is loaded"),
        ("def f(:\n", "rewards.py:1: cannot be read as Python (invalid syntax)"),
        ("", "rewards.py: no function in it; write def f(completions, **columns) or "
             "def f(prompts, completions, answer, types=None)"),
        ("def f(text): return 1\n",
         "rewards.py: function f: no parameter completions; write def f(completions, **columns) or "
         "def f(prompts, completions, answer, types=None)"),
        ("async def f(completions): return [1, 2]\n",
         "rewards.py: f is no plain function; write def f(completions, **columns) or "
         "def f(prompts, completions, answer, types=None)"),
        ("@register_reward_function()\nclass F:\n    def __init__(self, x): pass\n",
         "rewards.py: class F: TypeError: F.__init__() missing 1 required positional argument: 'x' when made "
         "without arguments"),
    ],
)  # fmt: skip
def test_a_fault_of_a_file_is_one_line_with_file_and_function(tmp_path, source, line):
    assert refusal(tmp_path, source) == line


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"names": ["four"]}, "rewards.py: no reward function 'four'; it has one, two, three"),
        ({"weights": [1, 2]}, "rewards.py: 2 weights for 3 functions (one, two, three)"),
        (
            {"weights": {"four": 1}},
            "rewards.py: a weight for 'four', which is not used; used are one, two, three",
        ),
        ({"weights": [1, 2, float("nan")]}, "rewards.py: weight nan of three: expected a number"),
        ({"weights": [1, 2, "3"]}, "rewards.py: weight '3' of three: expected a number"),
    ],
)
def test_names_and_weights_that_do_not_fit_are_refused(tmp_path, options, line):
    assert refusal(tmp_path, THREE, **options) == line


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"nowhere\.py: cannot be read as Python \(.*No such file"):
        load_reward_functions(tmp_path / "nowhere.py")


def test_a_column_of_another_length_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="column solution: 1 values for 2 completions"):
        score(functions(tmp_path, THREE), PROMPTS, COMPLETIONS, {"solution": ["x"]})


def test_a_function_cannot_change_what_the_next_one_gets(tmp_path):
    source = (
        "def a(completions, solution):\n    solution.clear(); completions.clear()\n    return [0, 0]\n"
        + KEYWORD
    )
    assert scored(tmp_path, source).total == [2.0, 1.0]
