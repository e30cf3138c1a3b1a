"""`python -m checkout_simulator [N]`: when the next N peaks (5) begin, by the environment's settings."""

from __future__ import annotations

import sys
import time
from datetime import datetime
from itertools import islice

from .schedule import PeakSchedule
from .settings import Settings, SettingsError


def main(arguments: list[str]) -> None:
    """Print one line a peak: local time, and the seconds until then."""
    try:
        schedule = PeakSchedule.of(Settings.from_env())
        count = int(arguments[0]) if arguments else 5
    except SettingsError as error:
        sys.exit(str(error))
    except ValueError:
        sys.exit(f"{arguments[0]!r} is not a whole number: type how many peaks to list, such as 5")
    now = time.time()
    print("a peak is on now" if schedule.in_peak(now) else "no peak is on now")
    for start in islice(schedule.starts_after(now), count):
        moment = datetime.fromtimestamp(start).astimezone().isoformat(timespec="seconds")
        print(f"{moment}  in {start - now:.0f} s, for {schedule.length_s:g} s")


if __name__ == "__main__":
    main(sys.argv[1:])
