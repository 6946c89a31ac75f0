"""Starting, loading and saving models: random weights or a pretrained model, safetensors only, no remote code."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit import chat
from labkit.errors import LabError
from labkit.lab import Model

_building = threading.RLock()


def alone(build: Callable[..., Any]) -> Callable[..., Any]:
    """One model at a time: transformers patches its own classes while it builds one, and a second thread would get a half."""

    @functools.wraps(build)
    def one(*args: Any, **kwargs: Any) -> Any:
        with _building:
            return build(*args, **kwargs)

    return one


@alone
def fresh(settings: Model, tokenizer: Any) -> Any:
    """A Llama-shaped model with random weights, N(0, 1/d): at this size .02 learns much more slowly."""
    from transformers import LlamaConfig, LlamaForCausalLM

    if settings.hidden % settings.heads:
        raise LabError(f"model.hidden ({settings.hidden}) must be a multiple of model.heads ({settings.heads}).")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        intermediate_size=settings.intermediate,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=settings.context,
        initializer_range=settings.hidden**-0.5,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


@alone
def pretrained(settings: Model, *, cache: Path) -> tuple[Any, Any]:
    """A model and tokenizer by hub id, local folder or GGUF file. Raises LabError in a sentence when they cannot be had."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path: Any = settings.path
    if path.endswith(".gguf"):
        from labkit.gguf import convert

        path = convert(Path(path), cache)
    elif path.startswith((".", "/", "~")) or os.sep in path and Path(path).expanduser().exists():
        path = Path(path).expanduser()
        if not (path / "config.json").is_file():
            raise LabError(f"There is no model in {path}: a folder with config.json and *.safetensors is needed.")
    try:
        tokenizer = chat.ready(AutoTokenizer.from_pretrained(path, padding_side="left", trust_remote_code=False))
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=getattr(torch, settings.dtype), use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, ImportError) as error:
        raise LabError(_why(str(settings.path), str(error))) from error
    tokenizer.model_max_length = min(settings.context, tokenizer.model_max_length)
    return model, tokenizer


def _why(path: str, message: str) -> str:
    low = message.lower()
    if "gated" in low or "401" in low or "403" in low:
        return (
            f"The model {path} is gated: accept its terms on its page, then log in with 'hf auth login', and run again."
        )
    if "safetensors" in low:
        return f"The model {path} has no safetensors weights, and no other kind is loaded: convert it first."
    if "remote code" in low or "trust_remote_code" in low:
        return (
            f"The model {path} needs code of its own, which is never run here: choose a model that transformers knows."
        )
    if any(
        w in low for w in ("offline", "connect", "couldn't", "can't load", "resolve", "not a valid model identifier")
    ):
        return f"The model {path} could not be reached: check the name and the connection, or give a local folder in model.path."
    return f"The model {path} cannot be loaded: {message.splitlines()[0]}"


@alone
def load(folder: Path, *, device: str, dtype: str = "float32") -> tuple[Any, Any]:
    """The model and tokenizer of a finished run, behind its prefix where it has one."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from labkit import prefixes

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), use_safetensors=True)
    model = prefixes.put_saved(model.to(device), folder)
    return model, AutoTokenizer.from_pretrained(folder, padding_side="left")


@alone
def load_reward(folder: Path, *, device: str, dtype: str = "float32") -> Any:
    """A sequence classifier with one output: a reward model, or the start of a value network."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=1, dtype=getattr(torch, dtype), use_safetensors=True
    )
    return model.to(device)


def save(model: Any, tokenizer: Any, folder: Path) -> Any:
    """Whole weights as safetensors (adapters merged in), with the tokenizer beside them; returns the whole model."""
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    model.__dict__.pop("forward", None)  # trainers patch it on the instance
    model.config.use_cache = True
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return model


def lora(settings: Model, *, task: str = "CAUSAL_LM") -> Any:
    """The PEFT configuration that the recipe asks for, or None for full weights."""
    if not settings.lora:
        return None
    from peft import LoraConfig, TaskType

    return LoraConfig(
        r=settings.lora,
        lora_alpha=2 * settings.lora,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type=TaskType[task],
        modules_to_save=["score"] if task == "SEQ_CLS" else None,
    )
