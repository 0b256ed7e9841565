"""What everything in one process costs: beside the service alone, both started anew several times.

Run: `python -m bench.gateway.one` (nine minutes). Two runs of one program differ by some hundredths for as long as they live,
wherever their memory happens to lie, and a shared machine differs by more from minute to minute: so both are started anew,
ask in turns that change their order, and each figure is a median of all turns with the quartiles beside it.
"""

import statistics
import sys

from bench.gateway.proxies import LINES, Way, idle_share, in_turns
from bench.gateway.stage import stage
from bench.gateway.wrk import Asked, ready
from onebox.split import free_ports

STARTS = 5
ROUNDS = 4
PATH = "/v1/me/check-ins"


def spread(figures: list[float]) -> str:
    """The median, and the quartiles."""
    low, middle, high = statistics.quantiles(figures, n=4)
    return f"{middle:8.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Run it."""
    if (missing := ready()) is not None:
        sys.exit(missing)
    one, members = free_ports(2)
    turns: dict[int, list[tuple[Asked, Asked]]] = {lines: [] for lines in LINES}
    file = None
    with stage(one) as on:
        for start in range(STARTS):
            servers = on.whole(), on.direct(members)
            # Once: a token lives longer than all this takes.
            file = file or on.sign_in(members)
            whole, direct = (
                Way(name, server, idle_share(server)) for name, server in zip(("whole", "direct"), servers, strict=True)
            )
            print(
                f"start {start + 1}: idle {whole.idle * 1000:.1f} and {direct.idle * 1000:.1f} ms of CPU a second",
                flush=True,
            )
            in_turns([direct, whole], PATH, LINES[-1], file, rounds=1)
            for lines in LINES:
                asked = in_turns([direct, whole], PATH, lines, file, rounds=ROUNDS)
                turns[lines] += zip(asked["whole"], asked["direct"], strict=True)
            for server in servers:
                server.process.terminate()
                server.process.wait(30)
    print(
        f"\n{'check-ins':12}{'a second, of direct':>28}{'CPU of an answer, of direct':>32}{'p50 ms':>16}{'p99 ms':>16}"
    )
    for lines, pairs in turns.items():
        rate = spread([ours.a_second / theirs.a_second for ours, theirs in pairs])
        cpu = spread([ours.cpu / theirs.cpu for ours, theirs in pairs])
        p50, p99 = (
            " / ".join(f"{statistics.median(getattr(pair[side], name) for pair in pairs):.1f}" for side in (0, 1))
            for name in ("p50", "p99")
        )
        print(f"{lines:<12}{rate:>28}{cpu:>32}{p50:>16}{p99:>16}")


if __name__ == "__main__":
    main()
