"""All families that are tried beside those of the corpus and of `tests.attention`."""

from __future__ import annotations

from architectures.decoders import decoders_families
from architectures.images import images_families, timm_families
from architectures.making import Family
from architectures.merged import whole_families
from architectures.sounds import sounds_families
from architectures.texts import recurrent_families, texts_families
from architectures.unusual import unusual_families
from architectures.written import written_families

__all__ = ["FAMILIES"]

FAMILIES: dict[str, Family] = {
    each.name: each
    for families in (
        decoders_families, texts_families, images_families, sounds_families, recurrent_families,
        timm_families, whole_families, unusual_families, written_families,
    )
    for each in families()
}  # fmt: skip
