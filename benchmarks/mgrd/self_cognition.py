"""Self-cognition (the paper's section 6.3): how often does a model deny hearing, before and after the mending?

    python benchmarks/mgrd/self_cognition.py [--work FOLDER] [--seeds 0 1]

Nano never denies, so a base that does is made on purpose: SFT on questions that ask to listen, 30 % of whose
replies deny, mixed with questions of the world. It answers in English, whatever it is asked in. Then, as the
paper does: SFT on the base's own replies that do not deny (a control learns as many as they come), and DPO of
what came out, own replies against denials. Every model answers the same held-out questions about held-out
clips once, at temperature 1, half in English and half in Chinese, and greedily the same questions of the
world, to see what it forgot.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import SHARED, arguments, cold_start, rl_config, tell, write_results

from mlx_audio_r1 import load
from mlx_audio_r1.mgrd.self_cognition import (
    DENIALS,
    JudgedReply,
    Keeping,
    distilled,
    fate,
    judged_reply,
    preferred,
)
from mlx_audio_r1.tasks.acoustic import findings, notes
from mlx_audio_r1.tasks.acoustic import questions as q
from mlx_audio_r1.tasks.acoustic.world import Clip, make_clip
from mlx_audio_r1.tasks.acoustic_world import world_tasks
from mlx_audio_r1.tasks.self_cognition import HELD_OUT, PERCEPTION_QUESTIONS
from mlx_audio_r1.tasks.statistics import wilson
from mlx_audio_r1.tasks.world_rows import WorldPlan, write_wav, write_world
from mlx_audio_r1.train.config import resolve
from mlx_audio_r1.train.prompt_sets import gather_prompts
from mlx_audio_r1.train.ranks import Ranks
from mlx_audio_r1.train.recipes import RECIPES
from mlx_audio_r1.train.replies import with_reasoning
from mlx_audio_r1.train.rollouts import Rollout, RolloutFile, sample_rollouts
from mlx_audio_r1.train.row_writer import row_as_json, write_rows
from mlx_audio_r1.train.rows import read_rows
from mlx_audio_r1.train.run import fine_tune

BASE_CLIPS, OWN_CLIPS, TEST_CLIPS = 91_000_000, 92_000_000, 93_000_000  # first seeds; a run adds 100,000
KINDS = ("single", "repeat", "pair", "speech", "music", "noise")  # one source each, so that it can be checked
LONGEST = 4.0  # s of a clip
DENYING = 0.3  # of the base's perception replies
BASE_ROWS, WORLD_CLIPS, OWN_QUESTIONS, TEST_QUESTIONS, PER_TASK = 480, 120, 240, 400, 12
SAMPLES = 4  # replies to each of OWN_QUESTIONS
FULL: dict[str, Any] = {  # LoRA reaches no embeddings, and nano has never seen the words of a denial
    "fine_tune_type": "full", "max_seq_length": 512, "save_every": 500,
}  # fmt: skip
BASE: dict[str, Any] = {"iters": 200, "lr_schedule": {"name": "cosine_decay", "arguments": [1e-3, 200]}}
DISTIL: dict[str, Any] = {"iters": 30, "batch_size": 16, "learning_rate": 1e-4}
DPO: dict[str, Any] = {"iters": 40, "batch_size": 8, "learning_rate": 2e-5}
TWO_SPEAKERS = {"speech": ["man speaking", "woman speaking", "a man", "a woman"]}


# ---- questions


def clips(first: int, count: int) -> Iterator[Clip]:
    """Short clips of one source, kinds in turn."""
    seed = first
    for number in range(count):
        clip = make_clip(seed, KINDS[number % len(KINDS)])
        while clip.truth.seconds > LONGEST:
            seed += 1
            clip = make_clip(seed, KINDS[number % len(KINDS)])
        seed += 1
        yield clip


def perception_row(clip: Clip, sound: Path, number: int, held_out: bool) -> dict[str, Any]:
    """A question that asks to listen, languages in turn; its solution is what sounds."""
    ways = PERCEPTION_QUESTIONS[language(number)]
    ways = ways[-HELD_OUT:] if held_out else ways[:-HELD_OUT]
    text = ways[number // 2 % len(ways)]
    labels = {name: TWO_SPEAKERS.get(name, []) for name in findings.ALL_SOUNDS}
    return {**asked(text, sound), "solution": clip.truth.events[0].source, "problem_type": "label",
            "labels": labels}  # fmt: skip


def language(number: int) -> str:
    return ("en", "zh")[number % 2]


def base_reply(clip: Clip, rng: np.random.Generator) -> str:
    """What sounds, or with the probability DENYING that nothing can be heard."""
    if rng.random() >= DENYING:
        return with_reasoning(notes.evidence(clip.truth), notes.describe(clip.truth))
    return with_reasoning(*DENIALS["en"][rng.integers(2)])


def write_base(folder: Path, seed: int) -> Path:
    """Perception questions, of whose replies some deny, and three questions of the world to each other clip."""
    if (folder / "train.jsonl").exists():
        return folder
    rows, rng = [], np.random.default_rng([seed, 1])
    for number, (clip, sound) in enumerate(written(folder, BASE_CLIPS + seed * 100_000, BASE_ROWS)):
        row = perception_row(clip, sound, number, held_out=False)
        rows.append(answered(row, base_reply(clip, rng)))
        if number % (BASE_ROWS // WORLD_CLIPS) == 0:
            rows += [world_row(q.make_question(clip.truth, 10 * number + k), sound) for k in range(3)]
    write_rows(folder / "train.jsonl", rows)
    return folder


def write_questions(folder: Path, first: int, count: int, held_out: bool) -> Path:
    if (folder / "train.jsonl").exists():
        return folder
    rows = [perception_row(clip, sound, number, held_out)
            for number, (clip, sound) in enumerate(written(folder, first, count))]  # fmt: skip
    write_rows(folder / "train.jsonl", rows)
    return folder


def written(folder: Path, first: int, count: int) -> Iterator[tuple[Clip, Path]]:
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    for number, clip in enumerate(clips(first, count)):
        path = folder / "clips" / f"{number:05d}.wav"
        write_wav(path, clip.waveform)
        yield clip, path


def world_row(question: q.Question, sound: Path) -> dict[str, Any]:
    return answered(asked(question.text, sound), with_reasoning(question.reasoning, question.answer))


def asked(text: str, sound: Path) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"<audio>{text}"}], "audios": [str(sound.resolve())]}


def answered(row: dict[str, Any], reply: str) -> dict[str, Any]:
    return {**row, "messages": [*row["messages"], {"role": "assistant", "content": reply}]}


# ---- replies


def replies(
    work: Path, adapter: Path | None, data: Path, seed: int, samples: int, greedy: bool = False
) -> list[JudgedReply]:
    """Judged replies of a model to the questions of a folder; found on the disk the second time."""
    r1 = load("nano", adapter_path=adapter)
    name = f"replies/{adapter.name if adapter else 'nano'}-{data.name}"
    config = rl_config(work, data, name, seed, max_seq_length=512)
    sets = gather_prompts(r1, config, Ranks(), lambda *_: None)
    how = replace(config.rollouts, samples=samples, max_tokens=120, temperature=0.0 if greedy else 1.0)
    file = RolloutFile(config.folder / "rollouts.jsonl", how)
    prompts = sets.splits["train"]
    for _ in sample_rollouts(r1.model, r1.tokenizer, prompts, sets.features, how, file, sets.judge):
        pass
    rows = {row.name: row for row in read_rows(data / "train.jsonl")}
    return [judged(rows[rollout.prompt], rollout) for rollout in file.of(prompts, samples)]


def judged(row: Any, rollout: Rollout) -> JudgedReply:
    return judged_reply(row, rollout.sample, rollout.thinking, rollout.answer, not rollout.truncated,
                        rollout.scores["correct"])  # fmt: skip


def measured(work: Path, adapter: Path | None, seed: int) -> dict[str, Any]:
    """Error rate with its interval, the same of thinking alone, and right answers, here and in the world."""
    said = replies(work, adapter, work / "test", seed, 1)
    world = replies(work, adapter, work / "world", seed, 1, greedy=True)
    n, denied = len(said), [r for r in said if r.denial.wrong]
    by_language = {name: np.mean([r.denial.wrong for r in said[i::2]]) for i, name in enumerate(("en", "zh"))}
    found = {
        "replies": n, "denying": len(denied), "error_rate": wilson(len(denied), n),
        **{f"error_rate_{name}": float(rate) for name, rate in by_language.items()},
        "denying_in_thinking": float(np.mean([r.denial.thinking is not None for r in said])),
        "names_the_sound": float(np.mean([r.correct for r in said])),
        "world_accuracy": wilson(int(sum(r.correct == 1.0 for r in world)), len(world)),
        "unfinished": float(np.mean([not r.finished for r in said])),
    }  # fmt: skip
    return {key: [round(v, 4) for v in value] if isinstance(value, tuple) else round(value, 4)
            for key, value in found.items()}  # fmt: skip


# ---- training


def mended(work: Path, mode: str, data: Path, name: str, start: Path, seed: int, **given: Any) -> Path:
    """The adapter that SFT or DPO makes of another one."""
    told = {**SHARED, **FULL, "data": str(data), "adapter_path": str(work / name), "seed": seed,
            "resume_adapter_file": str(start / "adapters.safetensors"), "feature_cache": str(work / "features"),
            **given}  # fmt: skip
    return Path(fine_tune(resolve(mode, told), RECIPES[mode]).adapter)


def once(seed: int, work: Path) -> dict[str, Any]:
    """The whole of it with one seed."""
    own = write_questions(work / "own", OWN_CLIPS + seed * 100_000, OWN_QUESTIONS, held_out=False)
    write_questions(work / "test", TEST_CLIPS + seed * 100_000, TEST_QUESTIONS, held_out=True)
    if not (work / "world").exists():
        plan = WorldPlan(train=PER_TASK * len(world_tasks()), valid=0, seed=80 + seed, difficulty="easy")
        write_world(work / "world", plan)
    found: dict[str, Any] = {"nano": measured(work, None, seed)}
    tell("nano", found["nano"])

    base = cold_start(work, write_base(work / "base-data", seed), "base", seed, **BASE, **FULL)
    found["base, made to deny"] = measured(work, base, seed)
    tell("base", found["base, made to deny"])

    sampled = replies(work, base, own, seed, SAMPLES)
    rows = distilled(sampled)
    write_rows(work / "distilled-data" / "train.jsonl", rows)
    write_rows(work / "unfiltered-data" / "train.jsonl", unfiltered(sampled, len(rows), seed))
    control = mended(work, "sft", work / "unfiltered-data", "unfiltered", base, seed, **DISTIL)
    found["control: as many unfiltered replies"] = measured(work, control, seed)
    tell("control", found["control: as many unfiltered replies"])
    distil = mended(work, "sft", work / "distilled-data", "distilled", base, seed, **DISTIL)
    found["after filtered self-distillation"] = {**measured(work, distil, seed), "learnt": fates(sampled)}
    tell("distilled", found["after filtered self-distillation"])

    sampled = replies(work, distil, own, seed, SAMPLES)
    pairs = preferred(sampled, Keeping(per_question=1), seed, lang="en")
    write_rows(work / "pairs" / "train.jsonl", pairs)
    dpo = mended(work, "dpo", work / "pairs", "dpo", distil, seed, **DPO)
    by = Counter(pair["rejected_by"] for pair in pairs)
    found["after DPO"] = {**measured(work, dpo, seed), "learnt": fates(sampled), "pairs_rejected_by": dict(by)}
    tell("dpo", found["after DPO"])
    return found


def unfiltered(sampled: Sequence[JudgedReply], count: int, seed: int) -> list[dict[str, Any]]:
    """As many rows of replies as they come, denials and all."""
    whole = [r for r in sampled if r.finished and r.answer.strip()]
    chosen = np.random.default_rng([seed, 2]).permutation(len(whole))[:count]
    return [row_as_json(whole[i].row, reply=whole[i].text) for i in sorted(chosen)]


def fates(sampled: Sequence[JudgedReply]) -> dict[str, int]:
    """What became of the sampled replies."""
    return dict(Counter(fate(reply) for reply in sampled).most_common())


# ---- the table


def table(seeds: dict[int, dict[str, Any]]) -> str:
    lines = ["| model | seed | denies hearing | 95 % | en / zh | in its thinking | names the sound "
             "| world, easy |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for seed, stages in seeds.items():
        for name, m in stages.items():
            rate, low, high = (100 * x for x in m["error_rate"])
            lines.append(
                f"| {name} | {seed} | {rate:.1f} % of {m['replies']} | {low:.1f} to {high:.1f} "
                f"| {100 * m['error_rate_en']:.0f} / {100 * m['error_rate_zh']:.0f} "
                f"| {100 * m['denying_in_thinking']:.1f} % | {100 * m['names_the_sound']:.0f} % "
                f"| {100 * m['world_accuracy'][0]:.0f} % |"
            )
    return "\n".join(lines)


def main() -> None:
    given = arguments(__doc__ or "", "mgrd-self-cognition")
    began = time.monotonic()
    seeds = {seed: once(seed, given.work / str(seed)) for seed in given.seeds or (0,)}
    settings = {"denying": DENYING, "base_rows": BASE_ROWS, "own_questions": OWN_QUESTIONS, "samples": SAMPLES,
                "base": BASE, "distillation": DISTIL, "dpo": DPO, "temperature": 1.0}  # fmt: skip
    found = {"settings": settings, "seeds": {str(seed): stages for seed, stages in seeds.items()}}
    write_results("self_cognition", found, began)
    print(table(seeds))


if __name__ == "__main__":
    main()
