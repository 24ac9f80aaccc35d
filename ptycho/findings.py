"""What a calibration or a diagnosis has to say: a code for programs and a sentence for people."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing found in the data or in a result.

    code: short name such as "hot_pixels". sentence: what was found, in numbers, and what was done or should be done.
    severe: the result should not be used as it is.
    """

    code: str
    sentence: str
    severe: bool = False
