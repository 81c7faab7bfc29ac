# SPDX-License-Identifier: MIT
"""The training text: cleaned, cut into documents, and split from what is held out.

A document is one chapter, tale or play section: small enough that beginnings and ends are frequent, so that the
model learns how a story opens after <|bos|> and that it may stop with <|eos|>.
"""
import re
import zlib
from pathlib import Path

# Text is normalised to what a keyboard types: it halves the spellings of a quotation mark for a small vocabulary.
_REPLACE = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u00a0": " ", "\u200b": None,
                          "\u2060": None, "\ufeff": None, "\t": " "})
_CHAPTER = re.compile(r"^(the [\w-]+ )?(chapter|part|book|act|scene|letter|canto|story)( [\w-]+)?[.:]?\s*[-\u2014:]*\s*|"
                      r"^[ivxlc]+\b[.:]?\s*[-\u2014:]*\s*|^\d+\b[.:]?\s*[-\u2014:]*\s*", re.I)
SHORT_TALE = 16000  # characters: fables and fairy tales end below it, chapters of novels mostly do not


def clean(text):
    """Markup and typography out, words and paragraphs kept."""
    text = text.replace("\r\n", "\n").translate(_REPLACE)
    text = text.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")
    text = re.sub(r"\*{2,}([^*\n]*)\*{2,}", r"\1", text)                # bold
    text = re.sub(r"(?<!\w)_([^_\n]+)_(?!\w)", r"\1", text)             # emphasis
    text = re.sub(r"^\s*(-{3,}|\*[ *]*\*|_{3,}|=+)\s*$", "", text, flags=re.M)  # rules between scenes
    text = re.sub(r"^#+\s*the end\W*$|^the end\W*$", "", text, flags=re.M | re.I)
    text = re.sub(r"[ ]+", " ", text)
    text = re.sub(r" *\n *", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def sections(text):
    """Yields (title, body) for every heading; front matter (title, author, year) and bare chapter numbers go."""
    for part in re.split(r"(?m)^(?=#{1,6} )", text):
        heading, body = "", part
        if part.startswith("#"):
            heading, _, body = part.partition("\n")
        heading = heading.lstrip("# ").strip()
        body = body.strip()
        if re.match(r"(title|author|year):", heading, re.I):
            body = re.sub(r"^(_?translat.*|.*translation by.*)$", "", body, flags=re.I | re.M).strip()
        if re.match(r"(contents|footnotes?|preface|introduction|index|notes?)\b", heading, re.I) or len(body) < 200:
            continue
        title = "" if re.match(r"(title|author|year):", heading, re.I) else _CHAPTER.sub("", heading).strip(" .-")
        yield title, body


def as_document(title, body):
    """Two in three titles stay, so that both a titled and an untitled opening are familiar. The choice depends on
    the text alone: every run sees the same documents."""
    if title and zlib.crc32(title.encode()) % 3:
        return f"## {title}\n\n{body}"
    return body


def load(folder):
    """-> (training, held_out): training is a list of (weight, text), held_out of texts.

    Held out is the last 1 % of children.txt (whole sections) and never enters the tokenizer's training either.
    Weights are how often a document is seen per epoch: what the model should sound like is seen more often.
    """
    folder = Path(folder)
    children = clean((folder / "children.txt").read_text(encoding="utf-8"))
    cut = children.index("\n#", len(children) - len(children) // 100)
    held_out = [as_document(*s) for s in sections(children[cut:])]
    training = [(3 if len(s[1]) < SHORT_TALE else 2, as_document(*s)) for s in sections(children[:cut])]
    training += [(1, as_document(*s)) for s in sections(clean((folder / "classics.txt").read_text(encoding="utf-8")))]
    plays = clean((folder / "tinyshakespeare.txt").read_text(encoding="utf-8")).split("\n\n")
    training += [(1, "\n\n".join(plays[i:i + 60])) for i in range(0, len(plays), 60)]
    return training, held_out


def tiny_stories(folder):
    """Evaluation only: modern simple English, another style than the training text. One text, as stored."""
    return clean((Path(folder) / "tinystories_dev.txt").read_text(encoding="utf-8"))
