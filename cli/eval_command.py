"""`audio-r1 eval`: benchmarks from the user's download to numbers that can be compared."""

from __future__ import annotations

import click

from mlx_audio_r1.cli.lazy_group import LazyGroup

SUBCOMMANDS = {  # name -> module, or module:attribute where a command has a name that Python keeps to itself
    "list": "eval_import_command:list_benches", "import": "eval_import_command:import_bench",
    "run": "eval_run_command", "score": "eval_score_command", "quant": "eval_quant_command",
    "compare": "eval_report_command", "report": "eval_report_command",
}  # fmt: skip


@click.group("eval", cls=LazyGroup, modules=SUBCOMMANDS)
def eval() -> None:
    """Measure a model by the benchmarks of the paper, or by your own questions.

    \b
    Examples:
      audio-r1 eval list
      audio-r1 eval import mmau MMAU/ -o mmau/
      audio-r1 eval run mmau/ -o runs/4bit --preset mini
      audio-r1 eval compare runs/bf16 runs/4bit
    """
