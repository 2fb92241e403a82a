"""Text on which caseless search goes wrong, for Hypothesis, and the oracle that knows what is right."""

from __future__ import annotations

from hypothesis import strategies as st

# Each line is one way to be wrong. The pieces are joined at random, so they also meet across word borders.
PIECES = [
    *("ß", "ss", "SS", "ẞ", "Straße", "STRASSE"),  # one character folds to two
    *("İ", "i", "I", "ı", "i̇", "I\u0307"),  # dotted and dotless i; İ folds to i and a combining dot
    *("Σ", "σ", "ς", "ΟΔΟΣ", "οδος"),  # final sigma folds to sigma
    *("ﬁ", "fi", "FI", "ﬃ", "ffi", "ŉ", "ʼn", "ǰ"),  # ligatures and their letters
    *("Ꭰ", "ꭰ", "ᏸ", "Ᏸ"),  # Cherokee folds to its capitals
    *(
        "é",
        "e\u0301",
        "E\u0301",
        "É",
        "\u0301",
        "ΐ",
        "ι\u0308\u0301",
        "ᾳ",
        "αι",
        "ͅ",
    ),  # marks, composed and not
    *(
        "👩\u200d🚀",
        "👩",
        "\u200d",
        "🚀",
        "🏳\ufe0f\u200d🌈",
        "\ufe0f",
        "👍🏽",
        "🇩🇪",
        "🇪",
    ),  # sequences and their parts
    *("𝒳", "𐐀", "𐐨", "𞤀", "𞤢", "𠮷", "\U0010fffd"),  # beyond the basic plane, with and without letter case
    *(
        "%",
        "_",
        "*",
        "?",
        "%%",
        "a%",
        "_b",
        "[a]",
        "^",
        "-",
        "+",
        "(",
        ")",
        "{",
        "}",
        ":",
        "~",
    ),  # patterns elsewhere
    *(
        "'",
        '"',
        "''",
        '""',
        "`",
        "\\",
        "\\\\",
        "\\n",
        ";",
        "--",
        "AND",
        "OR",
        "NOT",
        "NEAR(",
    ),  # syntax elsewhere
    *(
        "\n",
        "\r\n",
        "\t",
        " ",
        "  ",
        "\u00a0",
        "\u2028",
        "\x85",
        "\x01",
        "\x1f",
        "\ufeff",
    ),  # white and invisible
    *("שלום", "مرحبا", "\u202e", "\u200f", "ـ", "ّ"),  # right to left, and its marks
    *(
        "中",
        "中文",
        "日本語",
        "ｱ",
        "ア",
        "각",
        "각",
        "ไทย",
        "क्ष",
    ),  # scripts without spaces, decomposed Hangul
    *(
        "a",
        "A",
        "ab",
        "AB",
        "abc",
        "ABC",
        "b",
        "ba",
        "0",
        "Å",
        "Å",
        "K",
        "k",
        "µ",
        "μ",
    ),  # ASCII; signs that fold
]

BODIES = st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map("".join)
# Two letters: nearly every body has all of a query's short pieces, and seldom the query.
TANGLED = st.text("ab", min_size=3, max_size=14)
ANYTHING = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)


def matches(query: str, body: str) -> bool:
    """The oracle: Python's own meaning of a caseless substring."""
    return query.casefold() in body.casefold()
