"""What CPython's tracemalloc makes of given traces: a JSON request a line in, a JSON answer a line out.

A request has `old` and `new` (lists of [size, [[filename, lineno], …]], most recent frame first), `key`, `cumulative` and `filters`.
The answer has what is left of `new` (`kept`), its `statistics` and its `diff` (compare_to) with `old`, in tracemalloc's order.
"""

import json
import sys
import tracemalloc


def snapshot(traces, filters):
    raw = [
        (0, size, tuple((name, line) for name, line in frames), len(frames))
        for size, frames in traces
    ]
    return tracemalloc.Snapshot(raw, 64).filter_traces(filters)


def counted_once(found, key):
    """The same snapshot, each stack holding a frame (or file) once: our cumulative statistics count recursion once."""
    traces = []
    for domain, size, frames, total in found.traces._traces:
        once = {}
        for name, line in frames:
            once.setdefault(name if key == "filename" else (name, line), (name, line))
        traces.append((domain, size, tuple(once.values()), total))
    return tracemalloc.Snapshot(traces, 64)


def frames(traceback):
    return [[frame.filename, frame.lineno] for frame in traceback]


def answer(request):
    key, cumulative = request["key"], request["cumulative"]
    filters = [
        tracemalloc.Filter(f["inclusive"], f["pattern"], lineno=f["lineno"], all_frames=request["all_frames"])
        for f in request["filters"]
    ]
    old, new = (snapshot(request[side], filters) for side in ("old", "new"))
    kept = len(new.traces)
    if cumulative:
        old, new = counted_once(old, key), counted_once(new, key)
    return {
        "kept": kept,
        "statistics": [
            {"frames": frames(s.traceback), "numbers": [s.size, s.count], "text": str(s)}
            for s in new.statistics(key, cumulative)
        ],
        "diff": [
            {"frames": frames(d.traceback), "numbers": [d.size, d.size_diff, d.count, d.count_diff], "text": str(d)}
            for d in new.compare_to(old, key, cumulative)
        ],
    }


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
