"""Letters: the form that the manifest and the whitelist have in common.

Lines of text, a line `--`, a line with the SHA-1 of the text in hex, and a signature to the end of the file. What is
signed is the hex digits, not the text. Source: format, "Signature block".
"""

import hashlib
from typing import NamedTuple

LARGEST = 65_536  # bytes; real letters have a few hundred
_RULE = b"--\n"


class MalformedLetter(Exception):
    """Bytes that are not a letter; who parses them turns this into an error that names the file."""


class Letter(NamedTuple):
    """*text* with every line's newline; *signature* signs `text_hash(text)`."""

    text: bytes
    signature: bytes

    def encode(self) -> bytes:
        return self.text + _RULE + text_hash(self.text) + b"\n" + self.signature

    @classmethod
    def parse(cls, raw: bytes) -> "Letter":
        """Take a letter apart; the printed hash is right afterwards, the signature is still to be verified."""
        text, rest = _split(raw)
        printed, newline, signature = rest.partition(b"\n")
        if not newline or not signature:
            raise MalformedLetter("it is not signed, or truncated")
        if printed != text_hash(text):
            raise MalformedLetter("the hash printed in it is not that of its text (only SHA-1 is read)")
        return cls(text, signature)


def text_hash(text: bytes) -> bytes:
    """The 40 hex digits that get signed."""
    return hashlib.sha1(text).hexdigest().encode()


def text_lines(raw: bytes) -> list[str]:
    """The lines of a letter's text, signed or not."""
    text, _ = _split(raw)
    if not text.endswith(b"\n"):
        raise MalformedLetter("it is empty, or truncated")
    try:
        return text[:-1].decode().split("\n")
    except UnicodeDecodeError:
        raise MalformedLetter("it is not text") from None


def _split(raw: bytes) -> tuple[bytes, bytes]:
    if len(raw) > LARGEST:
        raise MalformedLetter(f"it has more than {LARGEST} bytes")
    text, rule, rest = raw.partition(b"\n" + _RULE)
    return (text + b"\n", rest) if rule else (raw, b"")
