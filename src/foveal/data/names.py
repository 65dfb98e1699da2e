"""What a person calls the classes that ImageNet names by synsets (n01440764: tench)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path


def read_words(path: Path) -> dict[str, str]:
    """Synset to words, from lines of a synset, a space or tab, and words: words.txt, LOC_synset_mapping.txt."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    found = (re.match(r"(n\d{8})\s+(\S.*)", line) for line in lines)
    return {match[1]: match[2].strip() for match in found if match}


def imagenet_words() -> dict[str, str]:
    """The words of ImageNet's 1000 classes and of all other synsets that timm knows."""
    from timm.data import ImageNetInfo

    words: dict[str, str] = ImageNetInfo().label_descriptions(as_dict=True)
    return words


def imagenet_synsets() -> list[str]:
    """ImageNet's 1000 classes in the order of their labels, which is that of their synsets."""
    from timm.data import ImageNetInfo

    return list(ImageNetInfo().label_names())


def unique(wnids: Sequence[str], words: Mapping[str, str]) -> tuple[str, ...]:
    """The first word of each class; with its synset where two share that (crane, maillot), and that alone without."""
    first = [words.get(wnid, wnid).partition(",")[0].strip() for wnid in wnids]
    counts = Counter(first)
    return tuple(word if counts[word] == 1 else f"{word} ({wnid})" for word, wnid in zip(first, wnids, strict=True))
