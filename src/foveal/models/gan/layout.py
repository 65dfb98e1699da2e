"""How wide the blocks of the networks are, where maps shrink, and after which block attention stands.

The rows for 32 and 64 pixels are those of StudioGAN's ResNet generator and discriminator and of its SAGAN; the smaller
ones are ours, for small images: those of 32 pixels with fewer blocks, and at 8 pixels wider ones, as there are so few.
"""

from __future__ import annotations

from dataclasses import dataclass

from foveal.errors import OptionError

# Rows and columns of the generator's first map.
BOTTOM = 4


@dataclass(frozen=True)
class Layout:
    """Widths are multiples of the networks' ``width``.

    Attributes:
        generator: of the first map and of each block's result; every block doubles the map, from 4 x 4.
        discriminator: of each block's result.
        halves: whether each block of the discriminator halves the map; the first one must.
        generator_at: attention stands after this block of the generator, from 1; 0 is nowhere.
        discriminator_at: the same in the discriminator.
    """

    generator: tuple[int, ...]
    discriminator: tuple[int, ...]
    halves: tuple[bool, ...]
    generator_at: int
    discriminator_at: int

    def __post_init__(self) -> None:
        blocks = {"generator": len(self.generator) - 1, "discriminator": len(self.discriminator)}
        fits = min(blocks.values()) >= 1 and len(self.halves) == len(self.discriminator) and self.halves[0]
        if not fits or min(*self.generator, *self.discriminator) < 1:
            raise OptionError(
                "Layout: it needs a first width and one a block, halves for every block of the discriminator and True "
                f"for the first, got {self}."
            )
        for name, at in (("generator", self.generator_at), ("discriminator", self.discriminator_at)):
            if not 0 <= at <= blocks[name]:
                raise OptionError(f"Layout: {name}_at must be 0 to {blocks[name]}, the number of blocks, got {at}.")
        if self.size % 2 ** sum(self.halves):
            raise OptionError(f"Layout: maps of {self.size} pixels cannot be halved {sum(self.halves)} times.")

    @property
    def size(self) -> int:
        """Rows and columns of the images."""
        return BOTTOM * 2 ** (len(self.generator) - 1)


LAYOUTS = {
    8: Layout((8, 4), (4, 8, 8), (True, False, False), 1, 1),
    16: Layout((4, 4, 4), (2, 2, 2), (True, False, False), 1, 1),
    32: Layout((4, 4, 4, 4), (2, 2, 2, 2), (True, True, False, False), 2, 1),
    64: Layout((16, 8, 4, 2, 1), (1, 2, 4, 8, 16), (True, True, True, True, False), 3, 1),
}


def layout_of(size: int | Layout) -> Layout:
    """The row for images of this size; a layout as it is."""
    if isinstance(size, Layout):
        return size
    if size not in LAYOUTS:
        raise OptionError(
            f"resnet_gan: size must be one of {', '.join(map(str, LAYOUTS))} pixels or a Layout, got {size!r}."
        )
    return LAYOUTS[size]
