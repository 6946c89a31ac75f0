"""From messages to tokens: the lab's chat template and tokenizer, and the one place that renders a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from labkit.errors import LabError
from labkit.records import Prompt

PAD, END, USER, ASSISTANT = "<pad>", "<end>", "<user>", "<assistant>"

# One turn is "<user> question" or "<assistant> answer<end>": with the blank, an answer's first word is the same token as
# after "A:" on the web's pages, so that what was learned there carries over. What stands inside {% generation %} is what SFT trains on.
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}<assistant>"
    "{% generation %} {{ message['content'] }}<end>{% endgeneration %}"
    "{% else %}<user> {{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
# For a base model from elsewhere that has no template of its own: plain words and its own end-of-text token.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}Assistant:"
    "{% generation %} {{ message['content'] }}{{ eos_token }}{% endgeneration %}\n"
    "{% else %}User: {{ message['content'] }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


def train_tokenizer(texts: Iterable[str], *, vocabulary: int, context: int) -> Any:
    """A byte-level BPE learned from `texts`, with a `<pad>` of its own: any text can be written in it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = [PAD, END, USER, ASSISTANT]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=PAD, eos_token=END, model_max_length=context, padding_side="left"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def ready(tokenizer: Any) -> Any:
    """A tokenizer from elsewhere, made fit: a pad token that is not the end token, and a chat template."""
    if tokenizer.eos_token is None:
        raise LabError(
            "This model's tokenizer has no end-of-text token: the lab needs one to know when an answer ends."
        )
    if tokenizer.pad_token is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        spare = [t for t in ("<pad>", "<|pad|>", "[PAD]", "<|endoftext|>", "<unk>") if t in tokenizer.get_vocab()]
        spare = [t for t in spare if t != tokenizer.eos_token]
        if not spare:
            raise LabError(
                "This model's tokenizer has no spare token for padding: add a '<pad>' token to it and save it."
            )
        tokenizer.pad_token = spare[0]
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_TEMPLATE
    return tokenizer


_SPECIAL: WeakKeyDictionary[Any, list[str]] = WeakKeyDictionary()  # a tokenizer → its special tokens


def plain(tokenizer: Any, text: str) -> str:
    """The text, with a zero-width space in whatever would be read as a special token: nobody types the end of a turn."""
    if tokenizer not in _SPECIAL:
        _SPECIAL[tokenizer] = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
    for token in _SPECIAL[tokenizer]:
        if token in text:
            text = text.replace(token, f"{token[0]}\u200b{token[1:]}")
    return text


def messages(tokenizer: Any, prompt: Prompt) -> list[dict[str, str]]:
    """The prompt's turns for a chat template, their texts `plain`."""
    return [{**turn, "content": plain(tokenizer, turn["content"])} for turn in prompt.messages]


def prompt_ids(tokenizer: Any, prompt: Prompt, *, room: int = 0, context: int | None = None) -> list[int]:
    """The tokens that stand before the answer. `room` is how many tokens the answer needs within `context`.

    Raises LabError when prompt and answer do not fit.
    """
    ids = tokenizer.apply_chat_template(messages(tokenizer, prompt), add_generation_prompt=True, return_dict=False)
    return fits(list(ids), room=room, context=context)


def text_ids(tokenizer: Any, text: str, *, room: int = 0, context: int | None = None) -> list[int]:
    """The tokens of plain text, for a base model that has never seen a chat template."""
    return fits(
        list(tokenizer(plain(tokenizer, text), add_special_tokens=False)["input_ids"]), room=room, context=context
    )


def fits(ids: list[int], *, room: int, context: int | None) -> list[int]:
    """The ids unchanged; raises LabError when there is no room for the answer."""
    if context is not None and len(ids) + room > context:
        raise LabError(
            f"A prompt of {len(ids)} tokens and an answer of up to {room} do not fit the model's context of {context}: "
            "shorten the prompt, or lower answers.max_tokens."
        )
    return ids


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of an answer, special tokens left out, blanks at its ends cut."""
    return tokenizer.decode(list(ids), skip_special_tokens=True).strip()


def answer_ids(tokenizer: Any, prompt: Prompt, completion: str) -> tuple[list[int], list[int]]:
    """The tokens of a prompt and of a given answer to it, the end token included and nothing after it."""
    asked, completion = messages(tokenizer, prompt), plain(tokenizer, completion)
    before = list(tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False))
    whole = asked + [{"role": "assistant", "content": completion}]
    ids = list(tokenizer.apply_chat_template(whole, return_dict=False))
    after = ids[len(before) :]
    if ids[: len(before)] != before:  # a word piece spans the border: write the answer after the prompt's own tokens
        opening = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
        text = tokenizer.apply_chat_template(whole, tokenize=False)
        rest = text.removeprefix(opening) if text.startswith(opening) else completion
        after = list(tokenizer(rest, add_special_tokens=False)["input_ids"])
    if tokenizer.eos_token_id in after:
        after = after[: after.index(tokenizer.eos_token_id) + 1]
    else:
        after.append(tokenizer.eos_token_id)
    return before, after
