"""Which of the waiting inputs share a forward pass: by cost, and of like length.

The oldest input is always among them, so none starves. Around it go the waiting inputs nearest in
length for as long as the padded batch stays within its budget: n inputs cost n times the longest.
"""

from __future__ import annotations

from collections.abc import Sequence


def choose(lengths: Sequence[int], *, budget: int, rows: int) -> list[int]:
    """Positions of the inputs for the next pass, the shortest first.

    Args:
        lengths: of the waiting inputs in the order in which they are due, at least one: tokens of
            a text, pixels of a picture.
        budget: the most that (number of inputs) x (longest) may come to; one input may exceed it.
        rows: the most inputs.
    """
    order = sorted(range(len(lengths)), key=lambda place: (lengths[place], place))
    low = high = order.index(0)
    longest = lengths[0]
    while high - low + 1 < rows:
        count = high - low + 2
        shorter = lengths[order[low - 1]] if low > 0 else None
        longer = lengths[order[high + 1]] if high + 1 < len(order) else None
        if longer is not None and count * longer > budget:
            longer = None
        if shorter is not None and count * longest > budget:
            shorter = None
        if shorter is None and longer is None:
            break
        # The nearer in length; where both are equally near, the one that is free of padding.
        first = lengths[0]
        if longer is None or (shorter is not None and first - shorter <= longer - longest):
            low -= 1
        else:
            assert longer is not None
            high, longest = high + 1, longer
    return order[low : high + 1]
