"""A prefix: what stands before every text that a model reads, kept as the keys and values that it leaves in each layer.

Whatever stands first is seen by later tokens only through its keys and values. So a written prompt, a soft prompt's vectors and
prefix tuning's own keys and values are one thing here, and a model behind a prefix is sampled and scored like any other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from labkit import sampling

FILE = "prefix.safetensors"  # beside a model's weights
Prefix = list[tuple[Tensor, Tensor]]  # a layer's keys and values, (1, heads, k, d / heads) each


def read(model: Any, ids: Sequence[int] | None = None, *, vectors: Tensor | None = None) -> Prefix:
    """What the model keeps of k tokens, or of k vectors (k, d) in the place of their embeddings; gradients flow to these."""
    inner = sampling.base(model).base_model
    device = next(inner.parameters()).device
    given = {"input_ids": torch.tensor([list(ids or ())], device=device)}
    if vectors is not None:
        given = {"inputs_embeds": vectors[None].to(next(inner.parameters()).dtype)}
    return of_cache(inner(**given, use_cache=True).past_key_values)


def of_cache(cache: Any) -> Prefix:
    """The keys and values in a cache of transformers."""
    return [(layer.keys, layer.values) for layer in cache.layers]


def flat(prefix: Prefix) -> Tensor:
    """The prefix in PEFT's order: (k, layers · 2 · heads · d / heads), of each layer first the keys, then the values."""
    each = [t[0].transpose(0, 1).flatten(1) for pair in prefix for t in pair]
    return torch.cat(each, 1).detach()


def put(model: Any, prefix: Prefix) -> Any:
    """From now on the model reads every text behind the prefix, at places k, k + 1, ...; returns a handle to `remove` it."""
    from transformers import DynamicCache

    size = prefix[0][0].shape[2]

    def behind(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        rows = next(x for x in (kwargs.get("input_ids"), kwargs.get("inputs_embeds")) if x is not None).shape[0]
        cache = kwargs.get("past_key_values")
        if cache is None:
            cache = DynamicCache()
        if cache.get_seq_length() == 0:
            for layer, (keys, values) in enumerate(prefix):
                cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
        kwargs["past_key_values"] = cache
        if (mask := kwargs.get("attention_mask")) is not None:
            kwargs["attention_mask"] = torch.cat([mask.new_ones(rows, size), mask], 1)
        if (positions := kwargs.get("position_ids")) is not None:
            kwargs["position_ids"] = positions + size
        return args, kwargs

    return sampling.base(model).base_model.register_forward_pre_hook(behind, with_kwargs=True)


@contextlib.contextmanager
def before(model: Any, prefix: Prefix) -> Iterator[Any]:
    """The model behind the prefix, for a while."""
    handle = put(model, prefix)
    try:
        yield model
    finally:
        handle.remove()


def save(prefix: Prefix, folder: Path) -> None:
    """Leave the prefix beside the weights in `folder`: `models.load` puts it before whatever the model reads."""
    from safetensors.torch import save_file

    named = zip(("keys", "values"), zip(*prefix, strict=True), strict=True)
    tensors = {f"{i}.{name}": t.detach().cpu().contiguous() for name, its in named for i, t in enumerate(its)}
    save_file(tensors, folder / FILE)


def put_saved(model: Any, folder: Path) -> Any:
    """The model behind the prefix that lies in `folder`, if one does."""
    from safetensors.torch import load_file

    if (folder / FILE).is_file():
        kept = load_file(folder / FILE)
        like = next(model.parameters())
        put(model, [(kept[f"{i}.keys"].to(like), kept[f"{i}.values"].to(like)) for i in range(len(kept) // 2)])
    return model
