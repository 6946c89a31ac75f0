"""A GGUF file, as llama.cpp uses it, made into a transformers folder once; after that it loads like any other model.

The weights are decoded from their few bits to float32 and are then trainable; what quantising lost stays lost.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from labkit.errors import LabError
from labkit.runs import sha256

DONE = "config.json"


def convert(path: Path, cache: Path) -> Path:
    """The transformers folder (safetensors, tokenizer, chat template) of a GGUF file, in `cache`; made if not there.

    The folder's name carries the file's digest. Raises LabError when the file or the package `gguf` is missing, or when
    transformers cannot read that kind of model.
    """
    path = path.expanduser()
    if not path.is_file():
        raise LabError(f"There is no file {path}: check model.path.")
    with open(path, "rb") as f:
        if f.read(4) != b"GGUF":
            raise LabError(
                f"{path} is not a GGUF file, whatever its name says: fetch it again, or name a model folder."
            )
    folder = cache / f"{path.stem}-{sha256(path)[:6]}"
    if (folder / DONE).is_file():
        return folder
    if importlib.util.find_spec("gguf") is None:
        raise LabError("Reading a GGUF file needs the package gguf: pip install gguf, and run again.")
    import filelock

    cache.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(cache / f".{folder.name}.lock"):  # the same file in two kernels: the second waits
        if not (folder / DONE).is_file():
            _convert(path, folder)
    return folder


def _convert(path: Path, folder: Path) -> None:
    """Load, make the weights plain, save beside the final place, and move there at once."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(path.parent.resolve()), "gguf_file": path.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**where)
        model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    except Exception as error:  # a damaged file ends in any of a dozen kinds; each gets a sentence, none is swallowed
        said = (str(error).splitlines() or [""])[0]
        raise LabError(f"{path} cannot be read as a model ({type(error).__name__}: {said}): fetch it again.") from error
    # Left in place, these three make `save_pretrained` refuse, or a reload look for quantised weights.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    if tokenizer.pad_token is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        if "<|endoftext|>" in tokenizer.get_vocab() and tokenizer.eos_token != "<|endoftext|>":
            tokenizer.pad_token = "<|endoftext|>"
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    half = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(half, ignore_errors=True)
    model.save_pretrained(half)
    tokenizer.save_pretrained(half)
    shutil.rmtree(folder, ignore_errors=True)  # what a killed attempt left there
    os.replace(half, folder)
