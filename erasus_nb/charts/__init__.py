"""The palette and the few chart kinds; each returns a figure with its finding and alt text.

Every chart takes what was measured and says what it found: the title is computed from the
numbers, never typed. Colour means category, everywhere, and never works alone (marker or
label says the same). A chart is drawn twice, for a column of text and for a phone, as inline
SVG that follows the page's font and theme, says each row under the pointer, and has the same
bytes for the same numbers.
"""

from .base import CONTROL, PALETTE, YOURS, Chart, Mark, mark_of
from .boards import axes, forest, leaks, measures, positions, quality_against_cost, rank_intervals
from .curves import Point, course, relearning, trade_off, windows
from .images import heat_maps, request_picture, traced

__all__ = [
    "CONTROL",
    "PALETTE",
    "YOURS",
    "Chart",
    "Mark",
    "Point",
    "axes",
    "course",
    "forest",
    "heat_maps",
    "leaks",
    "mark_of",
    "measures",
    "positions",
    "quality_against_cost",
    "rank_intervals",
    "relearning",
    "request_picture",
    "traced",
    "trade_off",
    "windows",
]
