"""Which questions are worth learning from (section 4.3 of the paper)."""

import pytest

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.train.curate import Curation


@pytest.mark.parametrize(("curation", "samples", "kept"), [
    (Curation(), 8, [3, 4, 5, 6]), (Curation(), 16, [*range(6, 13)]), (Curation(), 4, [2, 3]),
    (Curation("failed"), 8, [0]), (Curation("all"), 8, [*range(9)]), (Curation(low=8, high=8), 8, [8]),
])  # fmt: skip
def test_right_replies_that_are_kept(curation, samples, kept):
    assert [passed for passed in range(samples + 1) if curation.keeps(passed, samples)] == kept


@pytest.mark.parametrize("given", [{"strategy": "hard"}, {"low": 6, "high": 3}, {"low": -1}, {"high": 9}])
def test_bounds_that_cannot_be_are_refused(given):
    with pytest.raises(TrainingError):
        Curation(**given)
