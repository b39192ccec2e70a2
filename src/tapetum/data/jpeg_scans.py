"""Whether the scans of a JPEG tell all of it: decoders make up what a progressive one lacks, without a word."""

import re
from collections.abc import Iterator

_MARK, _PROGRESSIVE, _SCAN, _END = 0xFF, 0xC2, 0xDA, 0xD9  # of a JPEG: a mark's first byte, second bytes of some
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_NEXT = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)  # the mark behind a scan's data, which may hold others


def lacks_scans(content: bytes) -> bool:
    """Whether a progressive JPEG ends before each coefficient of each colour was told to its last bit."""
    bits_of: dict[int, int] = {}  # colour -> set of bits
    for kind, start in _list_segments(content):
        if kind in _FRAMES:
            if kind != _PROGRESSIVE:
                return False
            bits_of = dict.fromkeys(content[start + 10 : start + 10 + 3 * content[start + 9] : 3], 0)
        elif kind == _SCAN:
            ends = start + 5 + 2 * content[start + 4]  # the decoder has found these bytes there
            colours, (first, last, precision) = content[start + 5 : ends : 2], content[ends : ends + 3]
            if precision & 15 == 0:
                for colour in set(colours) & bits_of.keys():
                    bits_of[colour] |= (1 << last + 1) - (1 << first)
    return any(bits != (1 << 64) - 1 for bits in bits_of.values())


def _list_segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Kind and place of each segment up to the end mark.

    What is within one, such as a profile or a small picture, and what follows the end are not looked at.
    """
    place = 2
    while 0 <= place < len(content) - 9 and content[place] == _MARK:
        kind = content[place + 1]
        if kind == _END:
            return
        if kind == _MARK:  # one of several fill bytes
            place += 1
            continue
        yield kind, place
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        if kind == _SCAN:  # its data hold marks of their own: a stuffed zero, restarts
            found = _NEXT.search(content, place)
            place = found.start() if found else -1
