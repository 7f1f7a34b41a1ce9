"""Every public name of tracemalloc, a line each: functions, classes, and what their instances have."""

import inspect
import tracemalloc
from tracemalloc import DomainFilter, Filter, Snapshot

INSTANCES = {"Filter": Filter(True, "*"), "DomainFilter": DomainFilter(True, 0), "Snapshot": Snapshot([], 1)}

for name, value in sorted(vars(tracemalloc).items()):
    if name.startswith("_") or getattr(value, "__module__", None) not in ("tracemalloc", "_tracemalloc"):
        continue
    print(name)
    if inspect.isclass(value):
        members = set(vars(value)) | set(getattr(INSTANCES.get(name), "__dict__", ()))
        for member in sorted(members):
            if not member.startswith("_"):
                print(f"{name}.{member}")
