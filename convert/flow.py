"""PyTorch checkpoint -> MLX folder, one tensor at a time.

source shards - reader - one tensor at a time - key map - quantise - output shards in DIR.partial -
rename. Run the same command again after any interruption and it goes on; the result has the same
bytes as an uninterrupted run.

    from mlx_audio_r1.convert import Recipe, convert
    convert("stepfun-ai/Step-Audio-R1.1", "r1.1-4bit", Recipe(quantize=True, bits=4))
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.utils import save_config

from mlx_audio_r1.convert.card import describe, make_card, source_metadata
from mlx_audio_r1.convert.plan import SHARD_BYTES, Plan, PlannedShard, make_plan
from mlx_audio_r1.convert.quantise import Change, pieces
from mlx_audio_r1.convert.recipe import Recipe
from mlx_audio_r1.convert.source import Source, open_source
from mlx_audio_r1.convert.work import Work
from mlx_audio_r1.convert.writer import ShardWriter
from mlx_audio_r1.errors import CheckpointError
from mlx_audio_r1.files import disk_errors, write_file

NOTE_EVERY = 256 << 20  # bytes written between two notes of the progress
FORMAT = 1  # raise it when the same plan gives other bytes


@dataclass(frozen=True)
class Options:
    """How a conversion runs; what comes out does not depend on it, `shard_bytes` excepted."""

    revision: str | None = None
    keep_source: bool = False
    force: bool = False
    shard_bytes: int = SHARD_BYTES
    progress: Callable[[int, int], None] = lambda done, total: None  # source bytes
    say: Callable[[str], None] = lambda line: None


@dataclass(frozen=True)
class Job:
    """What becomes of a source. request: what a resumed run must ask for too. plan: gives the plan, and what
    else happens to the weights. command and done: what the card says was run, and done."""

    request: Mapping[str, Any]
    options: Options
    plan: Callable[[Source], tuple[Plan, Change | None]]
    command: Callable[[str, str], list[str]]  # of the origin's name and the target's
    done: str
    weights: str
    place: str = "--mlx-path"

    @property
    def origin(self) -> str:
        return str(self.request["hf_path"])


def convert(
    hf_path: str, mlx_path: str | Path, recipe: Recipe | None = None, options: Options | None = None
) -> Path:
    """Convert the folder or repository `hf_path` into the folder `mlx_path`, and return that.

    Raises CheckpointError, HubError or DiskError; after each of them the same call resumes.
    """
    recipe, options = recipe or Recipe(), options or Options()
    hf_path = hf_path.rstrip("/") or hf_path

    def plan(source: Source) -> tuple[Plan, None]:
        return make_plan(source.entries(), source.json("config.json"), recipe, options.shard_bytes), None

    def command(origin: str, target: str) -> list[str]:
        words = ["audio-r1", "convert", "--hf-path", origin, "--mlx-path", target]
        return words + (["--revision", options.revision] if options.revision else []) + recipe.options()

    request = {"hf_path": hf_path, "revision": options.revision, "options": recipe.options()}
    return run(Job(request, options, plan, command, "converted to MLX", describe(recipe)), mlx_path)


def run(job: Job, target: str | Path) -> Path:
    """Do the job, or go on with it, and return the folder it made."""
    work = Work(Path(target).expanduser())
    options = job.options
    _check_target(work, job, published=work.is_published(job.request))
    with work.locked():
        if work.is_published(job.request):
            work.clean_up()
            return work.target
        noted = _resumable(work, job)
        revision = noted.get("commit") or options.revision
        source = open_source(job.origin, work.source, revision=revision, keep=options.keep_source)
        try:
            _make(source, work, job, noted)
        finally:
            source.close()
    return work.target


def _make(source: Source, work: Work, job: Job, noted: dict[str, Any]) -> None:
    plan, change = job.plan(source)
    state = {
        "request": job.request,
        "commit": source.commit,
        "fingerprint": _fingerprint(source, plan),
        "mlx": mx.__version__,
        "steps": 0,
    }
    if noted and noted.get("fingerprint") != state["fingerprint"] and not job.options.force:
        raise CheckpointError(
            f"{work.root} was begun with MLX {noted.get('mlx')} or with a source that has changed since; "
            "start over with --force"
        )
    if noted.get("fingerprint") == state["fingerprint"]:
        state["steps"] = noted["steps"]
        job.options.say(f"going on with {work.root}, {state['steps']} of {len(plan.steps)} tensors done")
    else:
        work.begin(state)
    _warn_if_short_of_room(source, work, plan, state["steps"], job.options)
    _write_shards(source, work, (plan, change), state, job.options.progress)
    _write_small_files(source, work, plan, job)
    work.write_state(state | {"finished": True})
    work.publish()


def _check_target(work: Work, job: Job, *, published: bool) -> None:
    """Never write over anything the user did not say to write over."""
    target, place = work.target, job.place
    if published or not target.exists():
        return
    if not target.is_dir():
        raise CheckpointError(f"{target} is a file; choose another {place}")
    if not any(target.iterdir()):
        return
    if not (target / "config.json").exists():
        raise CheckpointError(f"{target} holds other files and no checkpoint; choose another {place}")
    if not job.options.force:
        raise CheckpointError(f"{target} exists; choose another {place}, or replace it with --force")
    if Path(job.origin).expanduser().resolve() == target.resolve():
        raise CheckpointError(f"{target} is the source; choose another {place}")


def _resumable(work: Work, job: Job) -> dict[str, Any]:
    """The notes of an unfinished conversion that this one continues; empty for a fresh start."""
    noted = work.read_state()
    if not noted or noted.get("request") == job.request:
        return noted
    if job.options.force:
        job.options.say(f"starting over: {work.root} held a conversion with other options")
        return {}
    old = noted["request"]
    words = " ".join([old["hf_path"], *old["options"]])
    raise CheckpointError(
        f"{work.root} holds an unfinished conversion of {words}; give those options to go on with it, "
        "or --force to start over"
    )


def _fingerprint(source: Source, plan: Plan) -> str:
    """Changes whenever a byte of the result could: other weights, plan, or arithmetic."""
    shards = sorted({entry.shard for step in plan.steps for entry in step.sources})
    text = repr((FORMAT, mx.__version__, source.identity(shards), plan.shards, json.dumps(plan.config)))
    return hashlib.sha256(text.encode()).hexdigest()


def _warn_if_short_of_room(source: Source, work: Work, plan: Plan, done: int, options: Options) -> None:
    needed = sum(step.output_bytes for step in plan.steps[done:])
    if source.commit and not options.keep_source:
        needed += max(source.sizes()[e.shard] for step in plan.steps for e in step.sources)
    free = shutil.disk_usage(work.root).free
    if free < needed:
        options.say(f"warning: {needed / 1e9:.1f} GB will be written and {free / 1e9:.1f} GB are free")


def _write_shards(
    source: Source, work: Work, planned: tuple[Plan, Change | None], state: dict[str, Any],
    progress: Callable[[int, int], None],
) -> None:
    plan, change = planned
    steps = plan.steps
    total = sum(step.source_bytes for step in steps)
    done = sum(step.source_bytes for step in steps[: state["steps"]])
    waiting = Counter(e.shard for step in steps[state["steps"] :] for e in step.sources)
    progress(done, total)
    for shard in plan.shards:
        skip = max(0, state["steps"] - shard.first)
        with _open_writer(work, shard, skip) as writer:
            unnoted = 0
            for step in shard.steps[skip:]:
                for piece in pieces(step, source.rows, change):
                    writer.write(piece)
                done += step.source_bytes
                unnoted += step.output_bytes
                progress(done, total)
                waiting.subtract(e.shard for e in step.sources)
                finished = {e.shard for e in step.sources if not waiting[e.shard]}
                state["steps"] += 1
                if finished or unnoted >= NOTE_EVERY or step is shard.steps[-1]:
                    writer.sync()
                    work.write_state(state)
                    unnoted = 0
                for name in finished:  # only now that what came of it is safe
                    source.release(name)
            writer.check_complete()


def _open_writer(work: Work, shard: PlannedShard, skip: int) -> ShardWriter:
    done = sum(len(step.outputs) for step in shard.steps[:skip])
    return ShardWriter(work.model / shard.name, shard.outputs, resume=done)


def _write_small_files(source: Source, work: Work, plan: Plan, job: Job) -> None:
    """Everything but the weights; config.json last, for a folder without it is no checkpoint."""
    for name in source.extras():
        path = source.path(name)
        with disk_errors(work.model / name):
            shutil.copyfile(path, work.model / name)
    readme = source.path("README.md") if "README.md" in source.sizes() else None
    # Folders by their last name alone: a published card must not tell where its author keeps files.
    origin = source.base_model or Path(job.origin).name
    command, metadata = job.command(origin, work.target.name), source_metadata(readme)
    card = make_card(
        work.target.name, command, source.base_model, metadata, done=job.done, weights=job.weights
    )
    write_file(work.model / "README.md", card)
    write_file(work.model / "model.safetensors.index.json", json.dumps(plan.index(), indent=4))
    with disk_errors(work.model / "config.json"):
        save_config(dict(plan.config), work.model / "config.json")
