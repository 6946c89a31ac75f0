"""A GGUF file becomes an ordinary model folder, once; a file that is none gets a sentence."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import LabError
from labkit.gguf import convert

HIDDEN, HEADS, LAYERS, WIDTH = 32, 2, 1, 64


def tiny_gguf(path: Path) -> dict[str, Any]:
    """A Llama of one layer with random weights and 8 byte-level tokens, as llama.cpp would store it; returns the weights."""
    import gguf
    import numpy as np

    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "c", "ab", "abc"]
    rng = np.random.default_rng(0)
    shapes = {
        "token_embd.weight": (len(tokens), HIDDEN),
        "output_norm.weight": (HIDDEN,),
        "blk.0.attn_norm.weight": (HIDDEN,),
        "blk.0.ffn_norm.weight": (HIDDEN,),
        **{f"blk.0.attn_{n}.weight": (HIDDEN, HIDDEN) for n in ("q", "k", "v", "output")},
        "blk.0.ffn_gate.weight": (WIDTH, HIDDEN),
        "blk.0.ffn_up.weight": (WIDTH, HIDDEN),
        "blk.0.ffn_down.weight": (HIDDEN, WIDTH),
    }
    weights = {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, 1, 1, 1, 1, 1])
    writer.add_token_merges(["a b", "ab c"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}")
    for name, weight in weights.items():
        writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


@pytest.mark.slow
def test_a_gguf_file_becomes_a_model_folder(tmp_path: Path) -> None:
    """Same weights, its own pad token, its chat template; a second call converts nothing; the model can be saved again."""
    pytest.importorskip("gguf")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights = tiny_gguf(tmp_path / "tiny.gguf")
    folder = convert(tmp_path / "tiny.gguf", tmp_path / "cache")
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert convert(tmp_path / "tiny.gguf", tmp_path / "cache") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    assert [p.name for p in (tmp_path / "cache").iterdir() if p.is_dir()] == [folder.name], "nothing half-made stays"
    model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert torch.equal(model.get_input_embeddings().weight, torch.tensor(weights["token_embd.weight"]))
    assert torch.equal(model.model.layers[0].mlp.down_proj.weight, torch.tensor(weights["blk.0.ffn_down.weight"]))
    assert tokenizer("abc")["input_ids"] == [7]
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False)
    assert asked == "<|im_start|>ab<|im_end|>"
    assert model.config.pad_token_id == 0
    model.save_pretrained(tmp_path / "again")


def test_what_is_no_gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "letter.gguf").write_text("Dear friend")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    for name, sentence in {"missing.gguf": "There is no file", "letter.gguf": "is not a GGUF file"}.items():
        with pytest.raises(LabError, match=sentence):
            convert(tmp_path / name, tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LabError, match="pip install gguf"):
        convert(tmp_path / "cut.gguf", tmp_path)


@pytest.mark.slow
def test_a_damaged_gguf_file(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    with pytest.raises(LabError, match="cannot be read as a model"):
        convert(tmp_path / "cut.gguf", tmp_path / "cache")
    assert not [p for p in (tmp_path / "cache").iterdir() if p.is_dir()]
