"""A download imported, and how its items are put."""

from mlx_audio_r1.evaluate.benches import bench
from mlx_audio_r1.evaluate.importing import import_bench
from mlx_audio_r1.prompt import AudioPart
from mlx_audio_r1.tasks.item_files import read_items


def imported(name, path, out):
    import_bench(bench(name), path, out)
    return list(read_items(out / "items.jsonl"))


def words_of(item):
    """The words of the last message, joined as the prompt joins them."""
    return "\n".join(part for part in item.messages()[-1].parts if isinstance(part, str))


def kinds_of(item):
    return ["audio" if isinstance(part, AudioPart) else "text" for part in item.messages()[-1].parts]
