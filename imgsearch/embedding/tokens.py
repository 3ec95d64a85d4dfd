"""Turn words into the numbers that the text tower of a CLIP takes.

The tokenizer is that of OpenAI's CLIP, which open_clip's networks share: byte pairs, merged in the
order of a list that a collection keeps beside its text tower. Like the original, it repairs what
programs do to text: entities of HTML, typographic quotes, ligatures, wide characters. Text that was
decoded in the wrong way, such as "cafÃ©", stays as it is, and characters that this Python's Unicode
does not know yet may be divided otherwise.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

__all__ = ["Tokenizer"]

_END = "</w>"  # Marks the last token of a word.
_SHORTENED = ("'s", "'ſ", "'t", "'re", "'ve", "'m", "'ll", "'d")
_LONGEST = 2_000  # Characters of a text; the tower takes some 75 tokens.
_PLAIN = str.maketrans(
    {
        **dict.fromkeys("\u02bc\u2018\u2019\u201a\u201b", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f", '"'),
        **dict(zip("ﬀﬁﬂﬃﬄﬅﬆ", ("ff", "fi", "fl", "ffi", "ffl", "ſt", "st"), strict=True)),
        **dict(zip("ĲĳŉǱǲǳ", ("IJ", "ij", "'n", "DZ", "Dz", "dz"), strict=True)),
        **dict(zip("ǄǅǆǇǈǉ", ("DŽ", "Dž", "dž", "LJ", "Lj", "lj"), strict=True)),
        **dict(zip("Ǌǋǌ", ("NJ", "Nj", "nj"), strict=True)),
    }
)
_WIDE = "\uff01", "\uffef"  # Wide and narrow forms of other characters.


class Tokenizer:
    """A tokenizer with its merges."""

    def __init__(self, merges: list[str]) -> None:
        """Take the merges, each "LEFT RIGHT", in the order of their priority."""
        letters = list(_letters().values())
        pairs = [tuple(merge.split(" ")) for merge in merges]
        names = [*letters, *(letter + _END for letter in letters), *map("".join, pairs)]
        self._numbers = {name: number for number, name in enumerate(names)}
        self._ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self._letters = _letters()
        self.start = len(names)
        self.end = self.start + 1

    def tokens(self, text: str, length: int) -> tuple[list[int], int]:
        """Return `length` tokens of a text, padded with 0 or cut off, and the place of the end."""
        found = [self.start]
        for word in _words(_cleaned(text)):
            found += self._merged(word)
            if len(found) >= length:
                break
        end = min(len(found), length - 1)
        return [*found[:end], self.end, *[0] * (length - end - 1)], end

    def _merged(self, word: str) -> Iterator[int]:
        """Yield the tokens of a word: its bytes, merged as long as a merge applies."""
        parts = [self._letters[byte] for byte in word.encode()]
        parts[-1] += _END
        while len(parts) > 1:
            pairs = list(pairwise(parts))
            best = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            merged: list[str] = []
            while parts:
                count = 2 if tuple(parts[:2]) == best else 1
                merged.append("".join(parts[:count]))
                del parts[:count]
            parts = merged
        yield from (self._numbers[part] for part in parts)


def _letters() -> dict[int, str]:
    """Return a visible character for each byte, in the order of their tokens."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {
        byte: chr(256 + place) for place, byte in enumerate(others)
    }


def _cleaned(text: str) -> str:
    """Return a text in lower case, on one line, and without what programs add to it."""
    text = text[:_LONGEST].translate(_PLAIN)
    text = "".join(
        unicodedata.normalize("NFKC", each) if _WIDE[0] <= each <= _WIDE[1] else each
        for each in text
    )
    text = html.unescape(html.unescape(unicodedata.normalize("NFC", text)))
    text = "".join(each for each in text if each.isspace() or not _is_control(each))
    return " ".join(text.encode("utf-8", "replace").decode().split()).lower()


def _is_control(character: str) -> bool:
    """Tell whether a character is in the way of text without being a part of it."""
    return (
        character < " "
        or character == "\x7f"
        or character in "\ufeff\ufff9\ufffa\ufffb\ufffc"
        or ("\u206a" <= character <= "\u206f")
    )


def _words(text: str) -> Iterator[str]:
    """Yield the words of a text: runs of letters, single digits, and runs of other characters."""
    at = 0
    while at < len(text):
        short = next((each for each in _SHORTENED if text.startswith(each, at)), None)
        kind = _kind(text[at])
        end = at + 1
        if short is not None:
            end = at + len(short)
        elif kind != "N":
            while end < len(text) and _kind(text[end]) == kind:
                end += 1
        if kind != " ":
            yield text[at:end]
        at = end


def _kind(character: str) -> str:
    """Return L for a letter, N for a digit, a space for one, and "" for any other character."""
    kind = unicodedata.category(character)[0]
    return " " if character.isspace() else kind if kind in "LN" else ""
