"""Everything measured side by side: `python -m benchmarks [NAME ...] [--quick]`.

In full, results.json is written anew for what was measured, and from it docs/performance.md and docs/scaling.md. Quick
runs write nothing and fail when a ratio is clearly past its bar: by a fifth, which is what few rounds on a busy machine
scatter. Times alone never fail, they belong to the machine.
"""

from __future__ import annotations

import argparse
import sys
import time

from benchmarks import (
    bulk,
    decode,
    export_memory,
    full_refresh,
    growth,
    import_memory,
    latency,
    memory,
    scale_out,
    stream,
    top_n,
    training,
)
from benchmarks.results import TIMES, Measured, keep, load, machine, print_table, report

BENCHMARKS = {
    "top-n": top_n.measure,
    "decode": decode.measure,
    "stream": stream.measure,
    "latency": latency.measure,
    "full-refresh": full_refresh.measure,
    "bulk": bulk.measure,
    "training": training.measure,
    "memory": memory.measure,
    "export-memory": export_memory.measure,
    "import-memory": import_memory.measure,
    "scale-out": scale_out.measure,
    "growth": growth.measure,
}
QUICK = ("top-n", "stream", "training")
"""Those with ratios that hold."""


def main() -> int:
    """Measure what was asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").replace("`", ""))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all if none is given")
    parser.add_argument("--quick", action="store_true", help="smaller; only compare, and fail when a ratio is missed")
    parser.add_argument("--document", action="store_true", help="measure nothing; write what is in results.json")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    names = [] if options.document else options.names or (QUICK if options.quick else list(BENCHMARKS))
    print(machine(), flush=True)
    missed: list[Measured] = []
    for name in names:
        started = time.perf_counter()
        found = BENCHMARKS[name](quick=options.quick)
        print_table(found)
        print(f"  ({time.perf_counter() - started:.0f} s)", flush=True)
        missed += [one for one in found if one.unit == TIMES and one.is_clearly_missed]
        if not options.quick:
            keep(name, found)
    if not options.quick:
        _write_documents()
        return 0
    return report(missed)


def _write_documents() -> None:
    from benchmarks import document, scaling

    document.write(load())
    try:
        scaling.write(load())
    except scaling.NotMeasured as error:
        print(f"{scaling.DOCUMENT.name} stays as it is, not measured yet: {error}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
