"""What text a screen can show."""

from __future__ import annotations

import unicodedata

# Control characters, halves of characters, and separators of lines and paragraphs. Characters that
# join others, which emoji and some scripts need, are not among them.
_CONTROL_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")


def has_control_characters(text: str, allowed: str = "") -> bool:
    """Whether there is anything but visible characters and spaces in the text."""
    return any(
        unicodedata.category(character) in _CONTROL_CATEGORIES and character not in allowed
        for character in text
    )
