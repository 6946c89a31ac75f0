"""What a token writes, as text to look at: byte-level pieces back to the bytes that they stand for, split characters named.

A token may hold only a part of a character (a dash or an emoji is three or four bytes): such bytes show as ⟨E2⟩, and the
character that they belong to stands beside them.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that GPT-2's alphabet writes as themselves
_OTHERS = [b for b in range(256) if b not in _PRINTABLE]
BYTES = {chr(b): b for b in _PRINTABLE} | {chr(256 + i): b for i, b in enumerate(_OTHERS)}


def _stray(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "".join(f"⟨{b:02X}⟩" for b in error.object[error.start : error.end]), error.end


codecs.register_error("labkit-stray", _stray)


def texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text of each token by itself: blanks and line ends as they are, marks such as `<end>` by name."""
    return [_text(b) for b in _bytes(tokenizer, ids)]


def split_characters(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """For each token of a text the characters that it holds only a part of, whole; "" for the many that hold whole ones."""
    parts = _bytes(tokenizer, ids)
    whole, found, start = b"".join(parts), [], 0
    for part in parts:
        first, end = start, start + len(part)
        start = end
        while 0 < first < len(whole) and _follows(whole[first]):
            first -= 1
        while end < len(whole) and _follows(whole[end]):
            end += 1
        found.append("" if len(part) == end - first else _text(whole[first:end]))
    return found


def marks(tokenizer: Any, ids: Sequence[int]) -> list[bool]:
    """Which tokens are marks of the format (`<end>`, `<user>`), not text."""
    return [i in tokenizer.added_tokens_decoder for i in ids]


def _follows(byte: int) -> bool:
    """Whether a byte continues a character of UTF-8."""
    return byte & 0xC0 == 0x80


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="labkit-stray")


def _bytes(tokenizer: Any, ids: Sequence[int]) -> list[bytes]:
    """The bytes of each token; a number that the tokenizer does not know (padding of the output layer) by its number."""
    added, level = tokenizer.added_tokens_decoder, "ByteLevel" in str(tokenizer.backend_tokenizer.decoder)
    out = []
    for i, piece in zip(ids, tokenizer.convert_ids_to_tokens(list(ids)), strict=True):
        if piece is None:
            out.append(f"⟨token {i}⟩".encode())
        elif i in added:
            out.append(str(piece).encode())
        elif level:
            out.append(bytes(BYTES[c] for c in piece))
        elif len(piece) == 6 and piece.startswith("<0x"):  # SentencePiece falls back to bytes like this
            out.append(bytes.fromhex(piece[3:5]))
        else:
            out.append(piece.replace("▁", " ").encode())
    return out
