"""The phases of a run, one function each, in the order of the paper's Figure 3.

    cold start: SFT, where wished RL on text
    round t: select -> sample K -> filter -> SFT on what is kept (equation 5) -> curate -> RL (equation 8)
    self-cognition: sample -> distil what hears -> DPO against denials

A phase reads what the phases before it left in the run's folder and writes its own, so it can be killed at
any moment and run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from mlx_audio_r1.errors import DataError
from mlx_audio_r1.judges.judge import open_judge
from mlx_audio_r1.mgrd.candidate import Candidate
from mlx_audio_r1.mgrd.config import MGRDConfig
from mlx_audio_r1.mgrd.evidence import Silence
from mlx_audio_r1.mgrd.filters import DecisionFile, filter_candidates
from mlx_audio_r1.mgrd.judge_prompt import EXPECTS
from mlx_audio_r1.mgrd.measuring import measure
from mlx_audio_r1.mgrd.select import draw, fates
from mlx_audio_r1.mgrd.self_phases import distil_hearing, measure_hearing, prefer_hearing, sample_replies
from mlx_audio_r1.mgrd.work import Work, train_file
from mlx_audio_r1.train.curate import curate
from mlx_audio_r1.train.replies import with_reasoning
from mlx_audio_r1.train.rollouts import FORMAT, Rollout, read_rollouts
from mlx_audio_r1.train.row_forms import Row
from mlx_audio_r1.train.row_writer import row_as_json, write_rows
from mlx_audio_r1.train.rows import find_splits, read_rows

SELECTED, FATES, ROLLOUTS = "selected", "selected.jsonl", "rollouts.jsonl"
SFT_DATA, CURATED, CRITIC = "sft_data", "curated", "critic_rollouts.jsonl"


@dataclass(frozen=True)
class Phase:
    """A phase and what it does."""

    name: str
    do: Callable[[Work], None]


def phases_of(config: MGRDConfig) -> list[Phase]:
    """All phases of a run, in order."""
    found: list[Phase] = []
    if config.cold_start is not None:
        found.append(Phase("0/sft", cold_start))
    if config.text_rl is not None:
        found.append(Phase("0/rl", text_rl))
    found.append(Phase("0/measure", partial(measured, number=0)))
    for t in range(1, config.rounds + 1):
        steps = {"select": select, "sample": sample, "filter": filtered, "sft": distil}
        if config.rl is not None:
            steps |= {"curate": curated, "rl": reinforce}
        steps["measure"] = measured
        found += [Phase(f"{t}/{name}", partial(do, number=t)) for name, do in steps.items()]
    return found + (_SELF if config.self_cognition is not None else [])


_SELF = [
    Phase("self/sample", sample_replies), Phase("self/sft", distil_hearing), Phase("self/dpo", prefer_hearing),
    Phase("self/measure", measure_hearing),
]  # fmt: skip


# ---- the cold start


def cold_start(work: Work) -> None:
    """SFT on reasoned and unreasoned replies (section 3.1 of the paper)."""
    keys = work.config.cold_start or {}
    work.train_epochs("sft", Path(keys["data"]), work.round(0) / "sft", None, keys)


def text_rl(work: Work) -> None:
    """RL on the questions without sound, whose answers can be verified."""
    rows = [row for row in _questions(work) if not row.sounds]
    if not rows:
        raise DataError(f"{work.config.data}: no question without sound in train.jsonl: leave text_rl out")
    data = work.round(0) / SELECTED
    write_rows(data / "train.jsonl", map(row_as_json, rows))
    start = work.round(0) / "sft" if work.config.cold_start is not None else None
    work.train("rl", data, work.round(0) / "rl", start, work.config.text_rl or {})


# ---- a round


def select(work: Work, number: int) -> None:
    """The questions of a round: those that want listening, and those without sound for RL."""
    selection, folder = work.config.selection, work.round(number)
    sounding, text = draw(_questions(work), selection, work.config.seed, number)
    silent = _silent(work, number, sounding) if selection.perception == "silence" else None
    found = fates(sounding, selection, silent)
    chosen = {fate.where for fate in found if fate.chosen}
    if not chosen:
        raise DataError(f"{work.config.data}: no question of train.jsonl wants listening "
                        f"({selection.perception}); set select: {{perception: any}}")
    write_rows(folder / FATES, map(asdict, found))
    rows = [row for row in sounding if row.name in chosen] + text
    write_rows(folder / SELECTED / "train.jsonl", (row_as_json(row, asked_in=row.name) for row in rows))
    _copy_valid(work, folder / SELECTED)
    work.tell(len(rows), len(rows))


def sample(work: Work, number: int) -> None:
    """K replies to every selected question from the model of the round before."""
    with work.model(work.policy(number - 1)) as r1:
        sets = work.questions(r1, work.round(number) / SELECTED, work.round(number))
        work.sample(r1, sets, sets.splits["train"], work.round(number) / ROLLOUTS, work.rollouts(),
                    step=number)  # fmt: skip


def filtered(work: Work, number: int) -> None:
    """Keep the replies that are right, grounded and coherent; say of every one why."""
    folder, filters = work.round(number), work.config.filters
    with work.model(work.policy(number - 1)) as r1:
        sets = work.questions(r1, folder / SELECTED, folder)
        prompts = {prompt.name: prompt for prompt in sets.splits["train"] if prompt.sounds}
        rollouts = [r for r in read_rollouts(folder / ROLLOUTS) if r.prompt in prompts]
        candidates = [Candidate(sets.judge.items[r.prompt], prompts[r.prompt], r) for r in rollouts]
        asks = work.api_key and filters.judge
        judge = open_judge(filters.judge_config, folder, work.api_key, EXPECTS) if asks else None
        deciding = filter_candidates(r1, candidates, sets.features, filters, folder, judge)
        for done, _ in enumerate(deciding, start=1):
            work.tell(done, len(candidates))


def distil(work: Work, number: int) -> None:
    """SFT on the kept chains and the original text reasoning (equation 5)."""
    folder = work.round(number)
    rows = {row.name: row for row in read_rows(folder / SELECTED / "train.jsonl")}
    kept = kept_rollouts(folder)
    if not kept:
        raise DataError(f"{folder}: the filters of round {number} kept none of the samples: see "
                        "decisions.jsonl and lower their thresholds")
    learnt = _drawn(kept, work.config.sft.get("examples"), work.config.seed, number)
    lines = [row_as_json(rows[r.prompt], reply=with_reasoning(r.thinking.strip(), r.answer.strip()))
             for r in learnt]  # fmt: skip
    lines += [row_as_json(row, reply=row.reply) for row in _text_rows(work.config)]
    write_rows(folder / SFT_DATA / "train.jsonl", lines)
    start = work.policy(number - 1)
    work.train_epochs("sft", folder / SFT_DATA, folder / "sft", start, work.config.sft)


def curated(work: Work, number: int) -> None:
    """Questions of the right difficulty, by the samples that there are (section 4.3)."""
    folder = work.round(number)
    config = work.sampling(folder / SELECTED, folder)
    with work.model(work.policy(number - 1)) as r1:
        curate(r1, config, folder / CURATED, work.config.curation, folder / ROLLOUTS)
    _rename_rollouts(folder)
    work.tell(1, 1)


def reinforce(work: Work, number: int) -> None:
    """RL on sound and text together (equation 8)."""
    folder, keys = work.round(number), dict(work.config.rl or {})
    if keys.get("value") in ("head", "lora"):
        keys.setdefault("critic_rollouts", str(folder / CURATED / CRITIC))
    work.train("rl", folder / CURATED, folder / "rl", folder / "sft", keys)


def measured(work: Work, number: int) -> None:
    """What the model of this round can do on valid.jsonl."""
    measure(work, number)


# ---- small things


def kept_rollouts(folder: Path) -> list[Rollout]:
    """The samples of a round that the filters kept, in the order of their decisions."""
    rollouts = {r.key: r for r in read_rollouts(folder / ROLLOUTS)}
    return [rollouts[d.prompt, d.sample] for d in DecisionFile.read(folder) if d.kept]


def _questions(work: Work) -> list[Row]:
    return list(read_rows(train_file(work.config.data)))


def _copy_valid(work: Work, folder: Path) -> None:
    valid = find_splits(work.config.data).get("valid")
    if valid:
        write_rows(folder / "valid.jsonl", map(row_as_json, read_rows(valid)))


def _silent(work: Work, number: int, rows: Sequence[Row]) -> dict[str, list[float]]:
    """Name -> correct of each direct reply to silence in the place of its sound."""
    folder = work.round(number) / "silent"
    write_rows(folder / "train.jsonl", map(row_as_json, rows))
    names = {f"train.jsonl:{i}": row.name for i, row in enumerate(rows, start=1)}
    with work.model(work.policy(number - 1)) as r1:
        sets = work.questions(r1, folder, folder)
        prompts = [sets.maker.prompt(sets.judge.rows[name], thinking=False) for name in names]
        config = work.rollouts(samples=work.config.selection.silent_samples)
        silent = replace(sets, features=Silence(r1.model, sets.features), judge=sets.judge.direct())
        rollouts = work.sample(r1, silent, prompts, folder / ROLLOUTS, config)
    found: dict[str, list[float]] = {}
    for rollout in rollouts:
        found.setdefault(names[rollout.prompt], []).append(rollout.scores["correct"])
    return found


def _drawn(kept: Sequence[Rollout], most: int | None, seed: int, number: int) -> Sequence[Rollout]:
    """At most so many of the kept samples, by lot."""
    if most is None or most >= len(kept):
        return kept
    chosen = np.random.default_rng([abs(seed), number]).permutation(len(kept))[:most]
    return [kept[i] for i in sorted(chosen.tolist())]


def _text_rows(config: MGRDConfig) -> Iterable[Row]:
    return read_rows(train_file(config.text)) if config.text else ()


def _rename_rollouts(folder: Path) -> None:
    """The samples of the questions that RL is about, under their names there: a critic learns from them."""
    kept = [row.columns["asked_in"] for row in read_rows(folder / CURATED / "train.jsonl")]
    selected = {row.columns["asked_in"]: row.name for row in read_rows(folder / SELECTED / "train.jsonl")}
    names = {selected[asked]: f"train.jsonl:{i}" for i, asked in enumerate(kept, start=1)}
    known = [r for r in read_rollouts(folder / ROLLOUTS) if r.prompt in names]
    lines = [{**r.as_dict(), "prompt": names[r.prompt]} for r in known]
    write_rows(folder / CURATED / CRITIC, [{"rollouts": FORMAT}, *lines])
