"""Adapters of Hugging Face's peft: theirs here, ours there, with equal logits; and what is refused.

The half that carries the mark `torch` uses the peft package itself on a Qwen2ForCausalLM of transformers with
our decoder's weights.
"""

import json
import shutil
import subprocess
import sys

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from click.testing import CliRunner
from mlx.utils import tree_flatten, tree_map

from mlx_audio_r1.adapter_config import AdapterConfig, LoRAParameters
from mlx_audio_r1.adapter_files import read_adapter, read_arrays
from mlx_audio_r1.adapters import adapter_arrays, attach, fill, load_adapter, save_adapter
from mlx_audio_r1.adapters_peft import LEAVES, export_peft, import_peft
from mlx_audio_r1.cli.main import cli
from mlx_audio_r1.config import parse_config
from mlx_audio_r1.errors import CheckpointError
from mlx_audio_r1.models.step_audio_r1 import Model

CONFIG = {
    "audio_encoder_config": {
        "n_mels": 128, "n_audio_ctx": 1500, "n_audio_state": 32, "n_audio_head": 2, "n_audio_layer": 2,
        "llm_dim": 80,
    },
    "text_config": {
        "vocab_size": 150, "hidden_size": 80, "intermediate_size": 112, "num_hidden_layers": 3,
        "num_attention_heads": 10, "num_key_value_heads": 5, "rms_norm_eps": 1e-5, "rope_theta": 1e6,
        "max_position_embeddings": 512,
    },
}  # fmt: skip
IDS = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3]]
Q, GATE = "self_attn.q_proj", "mlp.gate_proj"
# Two float32 stacks that sum in another order; measured 5e-7 relative to the largest logit.
TOLERANCE = 1e-5


def build(seed: int = 3) -> Model:
    model = Model(parse_config(CONFIG).with_shapes(adaptor_width=48, tied=False))
    keys = iter(mx.random.split(mx.random.key(seed), 500))
    model.update(tree_map(lambda p: mx.random.normal(p.shape, key=next(keys)) * max(p.shape[-1], 16) ** -0.5,
                          model.parameters()))
    return model.eval()


def adapt(folder, kind="lora", num_layers=-1, also_trained=(), keys=None, scale=2.0, rank=4, dropout=0.0):
    """An adapter of ours with numbers everywhere: (its folder, the model that carries it)."""
    model = build()
    config = attach(model, AdapterConfig(kind, num_layers, LoRAParameters(rank, scale, dropout, keys),
                                         also_trained, "base"))
    split = iter(mx.random.split(mx.random.key(8), 400))
    arrays = adapter_arrays(model).items()
    fill(model, {n: x + 0.1 * mx.random.normal(x.shape, key=next(split)) for n, x in arrays}, "test")
    return save_adapter(folder, model, config), model


def away(a, b) -> float:
    """The largest difference, relative to the largest value."""
    a, b = np.array(a), np.array(b)
    return float(np.abs(a - b).max() / np.abs(b).max())


def same_arrays(a, b) -> bool:
    return a.keys() == b.keys() and all(mx.array_equal(x, b[name]) for name, x in a.items())


pytestmark = [  # peft asks transformers for an attribute by the name it had before, and tells what it saves
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning"),
]
EVERY = ("self_attn.*", "mlp.*", "lm_head", "audio_adaptor.linear1", "audio_encoder.*")


@pytest.mark.parametrize("given", [
    {}, {"kind": "dora", "keys": EVERY}, {"num_layers": 2, "dropout": 0.25}, {"keys": (Q, GATE), "scale": 20.0},
    {"keys": ("model.layers.1.mlp.up_proj",)}, {"also_trained": ("audio_adaptor",), "scale": 0.1, "rank": 3},
    {"keys": (Q, "audio_adaptor.linear2"), "also_trained": ("audio_adaptor.conv", "model.norm")},
], ids=lambda given: ", ".join(given) or "all")  # fmt: skip
def test_there_and_back_no_bit_is_lost(tmp_path, given):
    ours, model = adapt(tmp_path / "ours", **given)
    export_peft(ours, tmp_path / "peft")
    back = import_peft(tmp_path / "peft", tmp_path / "back")
    (before, weights), (after, again) = read_adapter(ours), read_adapter(back)
    assert same_arrays(read_arrays(weights), read_arrays(again))
    # Without the base nobody knows how many layers there are: some of them come back by their full names.
    if before.num_layers < 1:
        assert set(after.lora_parameters.keys) == set(before.lora_parameters.keys)
    assert after.lora_parameters.scale == pytest.approx(before.lora_parameters.scale, rel=1e-15)
    assert (after.fine_tune_type, after.also_trained, after.model, after.lora_parameters.dropout) == (
        before.fine_tune_type, before.also_trained, "base", before.lora_parameters.dropout)
    loaded = build()
    load_adapter(loaded, back)
    assert mx.array_equal(loaded(mx.array(IDS)), model(mx.array(IDS)))


def test_the_files_are_pefts(tmp_path):
    ours, _ = adapt(tmp_path / "ours", "dora", keys=(Q, "audio_encoder.blocks.0.attn.query"),
                    also_trained=("audio_adaptor",))
    export_peft(ours, tmp_path / "peft", base_model_name="stepfun-ai/Step-Audio-R1.1")
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["q_proj", "encoder.blocks.0.attn.query"]
    assert config["modules_to_save"] == ["adapter"] and config["use_dora"] and not config["use_rslora"]
    assert config["r"] == 4 and config["lora_alpha"] == 8 and isinstance(config["lora_alpha"], int)
    assert config["base_model_name_or_path"] == "stepfun-ai/Step-Audio-R1.1"
    arrays = mx.load(str(tmp_path / "peft" / "adapter_model.safetensors"))
    shapes = {name: x.shape for name, x in arrays.items()}
    assert shapes["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"] == (4, 80)
    assert shapes["base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"] == (80, 4)
    assert shapes["base_model.model.encoder.blocks.0.attn.query.lora_magnitude_vector"] == (32,)
    assert shapes["base_model.model.adapter.conv.weight"] == (32, 32, 3)  # PyTorch's axes
    assert len(shapes) == 4 * 3 + 6
    ours_again = mx.load(str(ours / "adapters.safetensors"))
    assert mx.array_equal(arrays["base_model.model.adapter.conv.weight"].transpose(0, 2, 1),
                          ours_again["audio_adaptor.conv.weight"])


def test_some_layers_are_named_in_full(tmp_path):
    ours, _ = adapt(tmp_path / "ours", num_layers=1, keys=(Q,))
    export_peft(ours, tmp_path / "peft")
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["model.layers.2.self_attn.q_proj"]
    back, _ = read_adapter(import_peft(tmp_path / "peft", tmp_path / "back"))
    assert back.lora_parameters.keys == ("model.layers.2.self_attn.q_proj",)


# ---- what is refused


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A peft adapter to break copies of."""
    folder = tmp_path_factory.mktemp("peft")
    ours, _ = adapt(folder / "ours", keys=(Q, GATE))
    return export_peft(ours, folder / "peft")


def changed(sound, folder, tensors=None, **config):
    """A copy with other values in adapter_config.json and with other tensors."""
    shutil.copytree(sound, folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    if tensors:
        weights = folder / "adapter_model.safetensors"
        arrays = mx.load(str(weights))
        mx.eval(arrays)
        arrays.update(tensors)
        weights.unlink()
        mx.save_safetensors(str(weights), {n: x for n, x in arrays.items() if x is not None})
    return folder


A = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
B = A.replace("lora_A", "lora_B")


@pytest.mark.parametrize(("config", "words"), [
    ({"peft_type": "LOHA"}, "peft_type is LOHA"),
    ({"peft_type": None}, "peft_type is None"),
    ({"bias": "lora_only"}, "bias is 'lora_only'"),
    ({"lora_bias": True}, "lora_bias is not supported"),
    ({"layer_replication": [[0, 2]]}, "layer_replication is not supported"),
    ({"trainable_token_indices": [1]}, "trainable_token_indices is not supported"),
    ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens is not supported"),
    ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4', which changed the base"),
    ({"r": 0}, "r is 0"), ({"r": None}, "r is None"), ({"r": 8}, "has rank 4 and 4 in its factors, 8 in"),
    ({"lora_alpha": "8"}, "lora_alpha is '8'"),
    ({"lora_dropout": 2}, "dropout is 2"),
    ({"use_dora": True}, "q_proj lacks lora_magnitude_vector"),
    ({"rank_pattern": {"q_proj": 2}}, "has rank 4 and 4 in its factors, 2 in"),
    ({"rank_pattern": {"q_proj": "2"}}, "rank_pattern is"),
    ({"alpha_pattern": {"(": 2}}, "is no regular expression"),
])  # fmt: skip
def test_a_configuration_that_cannot_be_said_here_is_refused_by_name(sound, tmp_path, config, words):
    folder = changed(sound, tmp_path / "peft", **config)
    with pytest.raises(CheckpointError, match=words) as caught:
        import_peft(folder, tmp_path / "out")
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("tensors", "words"), [
    ({B: None}, "q_proj lacks lora_B"),
    ({B: mx.zeros((80, 5))}, "has rank 4 and 5"),
    ({A: mx.zeros((4, 80, 3))}, r"has shape \(4, 80, 3\), which is not that of a linear"),
    ({A: mx.zeros((4, 80), mx.int32)}, "expected floating point"),
    ({"base_model.model.model.embed_tokens.lora_embedding_A": mx.zeros((4, 150))}, "of a kind that cannot"),
    ({A.replace("lora_A.weight", "lora_B.bias"): mx.zeros(80)}, "of a kind that cannot be read"),
    ({A.replace("lora_A.weight", "lora_magnitude_vector"): mx.zeros(80)}, "without use_dora, lora_mag"),
    ({"base_model.model.transformer.h.0.weight": mx.zeros(3)}, "belongs to no part of Step-Audio-R1"),
])  # fmt: skip
def test_a_tensor_that_cannot_be_read_is_named(sound, tmp_path, tensors, words):
    folder = changed(sound, tmp_path / "peft", tensors)
    with pytest.raises(CheckpointError, match=words):
        import_peft(folder, tmp_path / "out")


@pytest.mark.parametrize(("damage", "words"), [
    (lambda f: shutil.rmtree(f), "no such folder"),
    (lambda f: (f / "adapter_config.json").unlink(), "no such file; give the folder of a PEFT adapter"),
    (lambda f: (f / "adapter_config.json").write_text("{"), "not readable as JSON"),
    (lambda f: (f / "adapter_config.json").write_text("[]"), "this is no PEFT adapter"),
    (lambda f: (f / "adapter_config.json").write_text("{}"), "this is no PEFT adapter"),
    (lambda f: (f / "adapter_model.safetensors").unlink(), "no adapter_model.safetensors and no"),
    (lambda f: (f / "adapter_model.safetensors").write_bytes(b"PK"), "not a safetensors file"),
])  # fmt: skip
def test_a_broken_folder_is_one_line(sound, tmp_path, damage, words):
    folder = tmp_path / "peft"
    shutil.copytree(sound, folder)
    damage(folder)
    with pytest.raises(CheckpointError, match=words) as caught:
        import_peft(folder, tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_a_full_fine_tune_is_no_peft_adapter(tmp_path):
    model = build()
    save_adapter(tmp_path / "full", model, attach(model, AdapterConfig("full")))
    with pytest.raises(CheckpointError, match="a full fine-tune is no adapter to peft; audio-r1 fuse"):
        export_peft(tmp_path / "full", tmp_path / "peft")


# ---- the commands


def run(*args):
    return CliRunner().invoke(cli, ["adapters", *map(str, args)], catch_exceptions=False)


def test_the_commands_print_the_folder_and_write_over_nothing(sound, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("import", sound)
    assert done.exit_code == 0 and done.stdout == "adapters\n"
    wrong = (["import", sound], ["export", "adapters", "-o", "adapters"], ["export", sound, "-o", "x"])
    for again in (run(*words) for words in wrong):
        assert again.exit_code == 1 and again.stderr.count("\n") == 1 and again.stderr.startswith("Error: ")
    assert run("import", sound, "--force").exit_code == 0
    done = run("export", "adapters", "-o", "back", "--base-model-name", "mine")
    assert done.exit_code == 0 and done.stdout == "back\n"
    told = json.loads((tmp_path / "back" / "adapter_config.json").read_text())
    assert told["base_model_name_or_path"] == "mine"
    before, after = (mx.load(str(f / "adapter_model.safetensors")) for f in (sound, tmp_path / "back"))
    assert same_arrays(before, after)


def test_a_peft_folder_given_as_an_adapter_says_what_to_do(sound):
    done = CliRunner().invoke(cli, ["info", "--adapter-path", str(sound)])
    assert done.exit_code == 1 and "audio-r1 adapters import" in done.stderr


# ---- against peft itself


def torch_model():
    """transformers' Qwen2 with our decoder's weights."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("peft")
    from transformers import Qwen2Config, Qwen2ForCausalLM

    theirs = Qwen2ForCausalLM(Qwen2Config(**CONFIG["text_config"], tie_word_embeddings=False,
                                          attn_implementation="eager")).eval()
    ours = tree_flatten(build().language_model.parameters())
    state = {name: torch.from_numpy(np.array(x)) for name, x in ours}
    theirs.load_state_dict(state, strict=True)
    return theirs


def torch_logits(model):
    import torch

    with torch.no_grad():
        return model(torch.tensor(IDS)).logits.numpy()


def made_by_peft(folder, model=None, *, safe=True, **config):
    """An adapter of the peft package with numbers everywhere, saved; the logits of the model with it."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("peft")
    from peft import LoraConfig, get_peft_model

    theirs = get_peft_model(model or torch_model(), LoraConfig(task_type="CAUSAL_LM", **config)).eval()
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    if safe:
        theirs.save_pretrained(folder)
    else:  # as peft saved them before safetensors
        from peft import get_peft_model_state_dict

        theirs.save_pretrained(folder)
        (folder / "adapter_model.safetensors").unlink()
        torch.save(get_peft_model_state_dict(theirs), folder / "adapter_model.bin")
    return torch_logits(theirs)


SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.mark.torch
@pytest.mark.parametrize("config", [
    {"r": 4, "lora_alpha": 8, "target_modules": SEVEN},
    {"r": 4, "lora_alpha": 8, "target_modules": SEVEN, "use_dora": True},
    {"r": 4, "lora_alpha": 8, "target_modules": SEVEN, "use_rslora": True, "lora_dropout": 0.5},
    {"r": 3, "lora_alpha": 7, "target_modules": ["q_proj", "v_proj"], "use_rslora": True, "use_dora": True},
    {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"},
    {"r": 4, "lora_alpha": 8, "target_modules": r".*layers\.[12]\..*(q|up)_proj"},
    {"r": 4, "lora_alpha": 8, "target_modules": SEVEN, "layers_to_transform": [0, 1]},
    {"r": 4, "lora_alpha": 8, "target_modules": [*SEVEN, "lm_head"], "use_dora": True},
    {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm"]},
    {"r": 4, "lora_alpha": 8, "target_modules": SEVEN, "alpha_pattern": {"v_proj": 16},
     "rank_pattern": {"down_proj": 2, r"layers\.1\..*q_proj": 7}},
    {"r": 4, "lora_alpha": 8, "target_modules": SEVEN, "rank_pattern": {"down_proj": 2}, "use_dora": True,
     "use_rslora": True, "alpha_pattern": {"model.layers.0.mlp.up_proj": 0.5}},
], ids=lambda config: ", ".join(config.keys() - {"r", "lora_alpha"}))  # fmt: skip
def test_an_adapter_made_by_peft_gives_the_same_logits(tmp_path, config):
    plain = torch_logits(torch_model())
    expected = made_by_peft(tmp_path / "peft", **config)
    model = build()
    load_adapter(model, import_peft(tmp_path / "peft", tmp_path / "ours"))
    assert away(model(mx.array(IDS)), expected) < TOLERANCE
    assert away(plain, expected) > 0.005  # it did something


@pytest.mark.torch
@pytest.mark.parametrize("use_dora", [False, True])
def test_gradients_are_pefts(tmp_path, use_dora):
    torch = pytest.importorskip("torch")
    pytest.importorskip("peft")
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    ours, model = adapt(tmp_path / "ours", "dora" if use_dora else "lora")
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=SEVEN, use_dora=use_dora)
    theirs = get_peft_model(torch_model(), config).eval()
    export_peft(ours, tmp_path / "peft")
    set_peft_model_state_dict(theirs, load_file(tmp_path / "peft" / "adapter_model.safetensors"))
    theirs(torch.tensor(IDS)).logits.square().mean().backward()
    _, tree = nn.value_and_grad(model, lambda m: m(mx.array(IDS)).square().mean())(model)
    gradients = dict(tree_flatten(tree))
    compared = 0
    for name, parameter in theirs.named_parameters():
        if parameter.grad is None:
            continue
        name = name.removeprefix("base_model.model.").replace(".default", "").replace(".weight", "")
        module, _, leaf = name.rpartition(".")
        mine = gradients[f"language_model.{module}.{LEAVES[leaf]}"]
        mine = mine if leaf == "lora_magnitude_vector" else mine.T
        # Float32 on both sides, each relative to its own largest value: measured 1e-6.
        assert away(mine, parameter.grad.numpy()) < TOLERANCE, name
        compared += 1
    assert compared == len(gradients) == 3 * 7 * (3 if use_dora else 2)


@pytest.mark.torch
def test_copies_of_the_base_that_peft_saves_are_left_out_and_told(tmp_path):
    """Beside LoRA on the head, peft saves the head itself, trained or not."""
    made_by_peft(tmp_path / "peft", r=4, lora_alpha=8, target_modules=["lm_head"])
    said = []
    import_peft(tmp_path / "peft", tmp_path / "ours", say=said.append)
    assert said == ["left out: lm_head.weight, peft's copy of a layer of the base"]
    assert set(mx.load(str(tmp_path / "ours" / "adapters.safetensors"))) == {"lm_head.lora_a", "lm_head.lora_b"}


@pytest.mark.torch
def test_a_pickled_adapter_is_read_and_nothing_in_it_is_run(tmp_path):
    expected = made_by_peft(tmp_path / "peft", safe=False, r=4, lora_alpha=8, target_modules=SEVEN)
    model = build()
    load_adapter(model, import_peft(tmp_path / "peft", tmp_path / "ours"))
    assert away(model(mx.array(IDS)), expected) < TOLERANCE
    import torch

    class Evil:
        def __reduce__(self):
            return (tmp_path / "run").mkdir, ()

    torch.save({"x": Evil()}, tmp_path / "peft" / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="PyTorch cannot read it"):
        import_peft(tmp_path / "peft", tmp_path / "out")
    assert not (tmp_path / "run").exists()


@pytest.mark.torch
@pytest.mark.parametrize("given", [
    {}, {"kind": "dora"}, {"kind": "dora", "num_layers": 2, "keys": ("mlp.*",)},
    {"keys": (Q, "lm_head"), "scale": 0.3},
    {"keys": ("model.layers.1.mlp.up_proj",)}, {"keys": (Q,), "also_trained": ("lm_head", "model.norm")},
], ids=lambda given: ", ".join(given) or "all")  # fmt: skip
def test_peft_loads_ours_and_gives_the_same_logits(tmp_path, given):
    pytest.importorskip("peft")
    from peft import PeftModel

    ours, model = adapt(tmp_path / "ours", **given)
    export_peft(ours, tmp_path / "peft")
    theirs = PeftModel.from_pretrained(torch_model(), tmp_path / "peft").eval()  # warns when a key is left over
    assert away(torch_logits(theirs), model(mx.array(IDS))) < TOLERANCE


@pytest.mark.torch
def test_the_audio_parts_are_found_under_their_official_names(tmp_path):
    """A torch model that has an `adapter` beside the decoder, as the official one; both ways."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("peft")
    parts = dict(tree_flatten(build().audio_adaptor.parameters()))

    class Adaptor(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv1d(32, 32, 3, stride=2, padding=1)
            self.linear1, self.linear2 = torch.nn.Linear(32, 48), torch.nn.Linear(48, 80)

        def forward(self, x):
            h = torch.nn.functional.gelu(self.conv(x.transpose(1, 2))).transpose(1, 2)
            return self.linear2(torch.relu(self.linear1(h)))

    def with_adaptor():
        model = torch_model()
        model.adapter = Adaptor()
        theirs = {n: x.transpose(0, 2, 1) if x.ndim == 3 else x for n, x in parts.items()}
        state = {n: torch.from_numpy(np.array(x)) for n, x in theirs.items()}
        model.adapter.load_state_dict(state, strict=True)
        return model.eval()

    sound = np.random.default_rng(2).standard_normal((1, 11, 32)).astype(np.float32)
    config = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "adapter.linear1"],
              "modules_to_save": ["adapter.conv"]}  # fmt: skip
    theirs = with_adaptor()
    made_by_peft(tmp_path / "peft", theirs, **config)
    with torch.no_grad():
        expected = theirs.adapter(torch.from_numpy(sound)).numpy()
    model = build()
    load_adapter(model, import_peft(tmp_path / "peft", tmp_path / "ours"))
    assert away(model.audio_adaptor(mx.array(sound)), expected) < TOLERANCE

    from peft import PeftModel

    ours, model = adapt(tmp_path / "mine", keys=(Q, "audio_adaptor.linear2"),
                        also_trained=("audio_adaptor.conv",))
    export_peft(ours, tmp_path / "back")
    theirs = PeftModel.from_pretrained(with_adaptor(), tmp_path / "back").eval()
    with torch.no_grad():
        given = theirs.base_model.model.adapter(torch.from_numpy(sound)).numpy()
    assert away(given, model.audio_adaptor(mx.array(sound))) < TOLERANCE


def test_torch_is_not_needed_for_safetensors(sound, tmp_path):
    pickled = tmp_path / "pickled"
    shutil.copytree(sound, pickled)
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    code = (
        "import sys; sys.modules['torch'] = sys.modules['peft'] = None\n"
        "from mlx_audio_r1.cli.main import main\n"
        "sys.argv[1:] = ['adapters', 'import', {!r}, '-o', {!r}]\n"
        "main()"
    )
    read, refused = (
        subprocess.run([sys.executable, "-c", code.format(str(folder), str(tmp_path / f"from-{folder.name}"))],
                       capture_output=True, text=True)
        for folder in (sound, pickled)
    )  # fmt: skip
    assert read.returncode == 0, read.stderr
    assert refused.returncode == 1 and "reading it needs PyTorch: pip install" in refused.stderr
