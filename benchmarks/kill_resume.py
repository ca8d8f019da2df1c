"""Kills a training run at random moments, resumes it, and counts what was lost and what was paid twice.

The run trains against the loopback service of the tests, in a process of its own that SIGKILL ends. The resumed run is
compared, bit for bit, with the same run uninterrupted.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

from common import command_line, publish

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "execution")]

from killed import Workshop
from loopback import loopback_process
from nursery import nursery

MODES = ("job", "batch", "session")


def main() -> None:
    parser = command_line(__doc__ or "")
    parser.add_argument("--kills", type=int, default=20, help="number of killed runs (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    figures = []
    with (
        tempfile.TemporaryDirectory() as name,
        loopback_process('engine="random"') as loopback,
        nursery(Path(name)) as forks,
    ):
        whole = Workshop(forks, loopback, Path(name) / "whole")
        seconds = whole.finish().seconds
        reference = whole.result()
        print(f"uninterrupted: {len(reference.requests)} jobs in {seconds:.1f} s")
        print("mode     killed after jobs then  jobs twice  lost sessions left  equal")
        for number in range(options.kills):
            shop = Workshop(forks, loopback, Path(name) / str(number), MODES[number % 3])
            moment = chance.uniform(0, seconds)
            killed = shop.go(kill_after=moment)
            before = len(loopback.jobs)
            shop.finish()
            result = shop.result()
            row = {
                "mode": MODES[number % 3],
                "seconds": moment,
                "ended_first": killed.status == 0,
                "jobs_then": before,
                "jobs": len(loopback.jobs),
                "twice": shop.twice,
                "lost": len(set(reference.requests) - set(result.requests)),
                "sessions_left": sum(session.state != "closed" for session in shop.sessions),
                "equal": not result.differences(reference),
            }
            figures.append(row)
            end = ("yes" if row["equal"] else "NO") + (" (had ended)" if row["ended_first"] else "")
            print(
                f"{row['mode']:8} {moment:10.2f} s {before:9} {row['jobs']:5} {row['twice']:5} {row['lost']:5} "
                f"{row['sessions_left']:13}  {end}",
                flush=True,
            )
    equal = sum(row["equal"] is True for row in figures)
    twice, lost = (sum(int(row[name]) for row in figures) for name in ("twice", "lost"))
    print(f"{len(figures)} kills: {equal} resumed runs equal, {twice} requests executed twice, {lost} results lost")
    publish({"runs": figures}, options.json)


if __name__ == "__main__":
    main()
