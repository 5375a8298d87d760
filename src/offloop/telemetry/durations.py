"""How long many things took, in little room: counts by powers of 1.02.

    add ──▶ counts by size ──▶ count, mean, largest, any percentile, a histogram

A DDSketch (Masson, Rim, Lee: "DDSketch: A Fast and Fully-Mergeable Quantile Sketch with
Relative-Error Guarantees", PVLDB 12, 2019): bucket `i` counts values in (g^(i-1), g^i]
and stands for 2 g^i / (g + 1), which is within (g - 1) / (g + 1) of each of them. With
g = 1.02 that is 1 %. There are 1,400 buckets from a tenth of a microsecond to a day,
of which those are kept that count something. Two of them merge by adding their counts,
and the result is what one would be that had seen all: what averages of percentiles
never are.

It is made here because the library that has it would be a third dependency of the core.

Nothing here looks at a clock.
"""

from __future__ import annotations

from math import ceil, log
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Durations"]

_GROWTH = 1.02
_PER_E = 1 / log(_GROWTH)
_MIDDLE = 2 / (_GROWTH + 1)

# Added to each value, and taken from what is told: zero has no logarithm.
_OFFSET = 1e-7


class Durations:
    """Many durations in seconds: how many, and how they are spread.

    What it tells of single ones, such as a percentile, is within 1 %, and a tenth of a
    microsecond, of a value that there was.
    """

    __slots__ = ("_buckets", "count", "largest", "total")

    def __init__(self) -> None:
        #: number of values by bucket
        self._buckets: dict[int, int] = {}
        #: how many there are
        self.count = 0
        #: their sum, in seconds
        self.total = 0.0
        #: the largest of them, exactly; 0.0 if there are none
        self.largest = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        """Take one that stands for `times` of its size; less than zero counts as zero.

        Clocks of two processes may differ by a little.
        """
        if seconds < 0.0:
            seconds = 0.0
        bucket = ceil(log(seconds + _OFFSET) * _PER_E)
        buckets = self._buckets
        buckets[bucket] = buckets.get(bucket, 0) + times
        self.count += times
        self.total += seconds * times
        if seconds > self.largest:
            self.largest = seconds

    # Telling

    @property
    def mean(self) -> float:
        """Their mean, in seconds; 0.0 if there are none."""
        return self.total / self.count if self.count else 0.0

    @property
    def p50(self) -> float:
        """The median, in seconds."""
        return self.quantiles((0.5,))[0]

    @property
    def p95(self) -> float:
        """What 95 of 100 do not exceed, in seconds."""
        return self.quantiles((0.95,))[0]

    @property
    def p99(self) -> float:
        """What 99 of 100 do not exceed, in seconds."""
        return self.quantiles((0.99,))[0]

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """Return what these shares of all do not exceed, in seconds.

        Args:
            shares: from 0 to 1, in rising order.
        """
        if not self.count:
            return [0.0] * len(shares)
        found: list[float] = []
        buckets = iter(sorted(self._buckets.items()))
        bucket, seen = next(buckets)
        for share in shares:
            rank = max(ceil(share * self.count), 1)
            while seen < rank:
                bucket, more = next(buckets)
                seen += more
            value = _GROWTH**bucket * _MIDDLE - _OFFSET
            found.append(min(max(value, 0.0), self.largest))
        return found

    def up_to(self, bounds: Iterable[float]) -> list[int]:
        """Return how many are at most as large as each bound, to within 1 % of it.

        Args:
            bounds: seconds, in rising order.
        """
        found: list[int] = []
        seen = 0
        buckets = sorted(self._buckets.items(), reverse=True)
        for bound in bounds:
            last = round(log(bound + _OFFSET) * _PER_E)
            while buckets and buckets[-1][0] <= last:
                seen += buckets.pop()[1]
            found.append(seen)
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return the usual figures by name, in seconds, for JSON."""
        p50, p95, p99 = self.quantiles((0.5, 0.95, 0.99))
        return {
            "count": self.count,
            "mean": self.mean,
            "p50": p50,
            "p95": p95,
            "p99": p99,
            "largest": self.largest,
        }

    def __repr__(self) -> str:
        p50, p95, p99 = self.quantiles((0.5, 0.95, 0.99))
        spread = f"p50 {p50:.3g} s, p95 {p95:.3g} s, p99 {p99:.3g} s"
        return f"<Durations: {self.count:,}, {spread}, largest {self.largest:.3g} s>"

    # Merging

    def __add__(self, other: Durations) -> Durations:
        """Return what one would be that had taken all of both."""
        made = self.copy()
        for bucket, times in other._buckets.items():
            made._buckets[bucket] = made._buckets.get(bucket, 0) + times
        made.count += other.count
        made.total += other.total
        made.largest = max(made.largest, other.largest)
        return made

    def copy(self) -> Durations:
        """Return one that does not change with this."""
        made = Durations()
        made._buckets = self._buckets.copy()
        made.count, made.total = self.count, self.total
        made.largest = self.largest
        return made
