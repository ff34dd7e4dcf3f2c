#!/usr/bin/python3
"""The kill sweep: stratod or blockd dies at every fault point that an act of a user reaches.

Each act is first done with the points written down, then once for each of them, with a SIGKILL
there.  After each: no call failed, what the calls had said is so, all is at rest within its time,
and `strato doctor fsck` finds nothing left over.

kill.py [ACT]...   these only; all otherwise.  STRATOFS_LONG=1: every point; else some of each act,
chosen by STRATOFS_SEED, and of these none twice."""
import os
import random
import sys
import traceback

from acts import ACTS, clear
from cloud import Cloud, Stuck, go_inside

LONG = os.environ.get("STRATOFS_LONG") == "1"
SEED = int(os.environ.get("STRATOFS_SEED", "1"))
FEW = 1  # points of an act in the short form
# Asked again and again by themselves, and change nothing.
IDLE = {"ping", "stats", "list", "list_exports", "locked", "stat"}


def reached(trace):
    """(program, point, how many times before) of each point, without those that come by time."""
    count, found = {}, []
    for program, point in trace:
        room, _, what = point.partition(".")
        if room in ("ask", "asked", "do", "done") and what in IDLE:
            continue
        count[program, point] = count.get((program, point), 0) + 1
        found.append((program, point, count[program, point]))
    return found


def perform(c, name, points):
    """True unless it was armed with a kill that was not met."""
    g = ACTS[name](c)
    next(g)
    c.rest()
    if points:
        c.arm(points)
    next(g)
    c.rest()
    met = not c.armed()
    trace = c.traced()
    c.disarm()
    next(g, None)
    c.rest()
    return met, trace


def sweep(c, name, chosen):
    """(points met, points not met, failures) of one act."""
    _, trace = perform(c, name, "trace")
    c.fsck()
    points = reached(trace)
    if not points:
        raise Stuck(f"{name} reaches no fault point")
    met, missed, failed = set(), [], []
    for _, point, n in chosen(points):
        armed = f"{point}=kill:{n}"
        try:
            hit, _ = perform(c, name, armed)
            c.fsck()
            if hit:
                met.add(point)
            else:
                missed.append(armed)
        except (OSError, Stuck) as e:
            failed.append(armed)
            print(f"FAIL {name} {armed}: {type(e).__name__} {e}", flush=True)
            traceback.print_exc(limit=-3)
            c.tail()
            c.disarm()
            c.rest()
            clear(c)
    print(f"{name}: {len(points)} points reached, {len(met)} kinds killed at, "
          f"{len(missed)} not met again, {len(failed)} failed", flush=True)
    return met, missed, failed


def main():
    go_inside()
    rng = random.Random(SEED)
    names = sys.argv[1:] or list(ACTS)
    all_met, failures, kills = set(), [], 0
    tried = set()

    def few(points):
        """Of the rarest first: what no act before has tried."""
        fresh = [p for p in points if p[1] not in tried]
        picked = rng.sample(fresh or points, FEW)
        tried.update(p[1] for p in picked)
        return picked

    c = Cloud()
    try:
        for name in names:
            try:
                met, _, failed = sweep(c, name, (lambda p: p) if LONG else few)
            except (OSError, Stuck):  # without any kill
                traceback.print_exc(limit=-3)
                met, failed = set(), ["as it is"]
                clear(c)
            all_met |= met
            kills += len(met)
            failures += [f"{name} {f}" for f in failed]
        print(f"seed {SEED}: {len(names)} acts, {len(all_met)} points killed at: "
              f"{' '.join(sorted(all_met))}")
    finally:
        c.close()
    for f in failures:
        print("FAIL", f)
    return 1 if failures or not all_met else 0


if __name__ == "__main__":
    sys.exit(main())
