#!/usr/bin/python3
"""Trouble at every fault point that an act of a user reaches.

Each act is first done with the points written down, then once for each of them, with trouble there:

  kill           stratod or blockd dies by SIGKILL.  No call may fail because of it, and what the
                 calls had said is so.
  EIO, ENOSPC... the point fails so.  Calls and jobs may fail, in words; what they were at can be
                 deleted.

After each all is at rest within its time, and `strato doctor fsck` finds nothing left over.

sweep.py TROUBLE [ACT]...   these acts only; all otherwise.  STRATOFS_LONG=1: every point; else one
of each act, chosen by STRATOFS_SEED, of a kind that no act before has tried."""
import os
import random
import subprocess
import sys
import traceback

from acts import ACTS, SLOW, clear, in_error, remains
from cloud import Cloud, Stuck, go_inside, read

LONG = os.environ.get("STRATOFS_LONG") == "1"
SEED = int(os.environ.get("STRATOFS_SEED", "1"))
FEW = 1  # points of an act in the short form
# Asked again and again by themselves, and change nothing.
IDLE = {"ping", "stats", "list", "list_exports", "locked", "stat", "state", "warm"}


def reached(trace):
    """(program, point, how many times before) of each point, without those that come by time."""
    count, found = {}, []
    for program, point in trace:
        room, _, what = point.rpartition(".")
        if room.partition(".")[0] in ("ask", "asked", "did", "do", "done") and what in IDLE:
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


def endure(c, name, points):
    """As perform(); whatever became of it, it can be taken away."""
    g = ACTS[name](c)
    next(g)
    c.rest()
    c.arm(points)
    try:
        next(g)
    except (OSError, subprocess.CalledProcessError):
        pass
    except Stuck as e:
        if "error" not in str(e):
            raise
    c.disarm()
    c.rest()
    for path in in_error(c):
        if not read(os.path.join(path, "error")):
            raise Stuck(f"{path}: an error without words")
    g.close()
    clear(c)
    c.rest()
    left = remains(c)
    if left:
        raise Stuck(f"cannot be taken away: {left}")
    return True


def sweep(c, trouble, name, chosen):
    """(points met, failures) of one act."""
    _, trace = perform(c, name, "trace")
    c.fsck()
    points = reached(trace)
    if not points:
        raise Stuck(f"{name} reaches no fault point")
    met, missed, failed = set(), 0, []
    for _, point, n in chosen(points):
        armed = f"{point}={trouble}:{n}"
        try:
            hit = perform(c, name, armed)[0] if trouble == "kill" else endure(c, name, armed)
            c.fsck()
            if hit:
                met.add(point)
            else:
                missed += 1
        except (OSError, Stuck, subprocess.CalledProcessError) as e:
            failed.append(f"{name} {armed}")
            print(f"FAIL {name} {armed}: {type(e).__name__} {e}", flush=True)
            traceback.print_exc(limit=-3)
            c.tail()
            c.disarm()
            clear(c)
    print(f"{name}: {len(points)} points reached, {trouble} at {len(met)} kinds of them, "
          f"{missed} not met again, {len(failed)} failed", flush=True)
    return met, failed


def main():
    go_inside()
    rng = random.Random(SEED)
    trouble, names = sys.argv[1], sys.argv[2:] or [n for n in ACTS if LONG or n not in SLOW]
    all_met, failures, tried = set(), [], set()

    def few(points):
        """Of those that no act before has tried."""
        picked = rng.sample([p for p in points if p[1] not in tried] or points, FEW)
        tried.update(p[1] for p in picked)
        return picked

    c = Cloud()
    try:
        for name in names:
            try:
                met, failed = sweep(c, trouble, name, (lambda p: p) if LONG else few)
            except (OSError, Stuck):  # without any trouble
                traceback.print_exc(limit=-3)
                met, failed = set(), [f"{name} as it is"]
                clear(c)
            all_met |= met
            failures += failed
        print(f"seed {SEED}: {trouble}: {len(names)} acts, {len(all_met)} kinds of points: "
              f"{' '.join(sorted(all_met))}")
    finally:
        c.close()
    for f in failures:
        print("FAIL", f)
    return 1 if failures or not all_met else 0


if __name__ == "__main__":
    sys.exit(main())
