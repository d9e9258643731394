"""Colours for data sets that define none."""

import colorsys

# M. Okabe and K. Ito, "Color Universal Design": distinct for all common types of colour vision; without their black.
_OKABE_ITO = [
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
]
_GOLDEN_RATIO = 0.618034


def generate_colors(count: int) -> list[tuple[int, int, int]]:
    """Return ``count`` distinct (R, G, B) colours, always the same; the first seven suit colour-blind readers.

    Further ones vary in hue and, since colour-blind readers cannot distinguish all hues, in lightness.
    """
    colors = _OKABE_ITO[:count]
    step = 0
    while len(colors) < count:
        hue, lightness = (step * _GOLDEN_RATIO) % 1, (0.35, 0.7, 0.5, 0.85)[step % 4]
        color = tuple(round(255 * x) for x in colorsys.hls_to_rgb(hue, lightness, 0.75))
        step += 1
        if color not in colors:
            colors.append(color)
    return colors
