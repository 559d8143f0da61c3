"""Key delivery of several checkouts of OpenQCI, in turns: what a change did to speed, on any machine.

Each checkout's own ``delivery.py`` makes and fills two nodes, which run its own code under this interpreter
and its dependencies; the load comes from the generator beside this file. Told are medians, and the processor
time that each node spends on an operation, which other work on the machine changes less.

    git worktree add /tmp/earlier COMMIT
    .venv/bin/python benchmarks/kme/beside.py /tmp/earlier .
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CELLS = [(1, 1), (1, 32), (100, 1), (100, 32)]
FIRST_PORT, PORTS_EACH = 9400, 300
WARM_UP_S = 1.0


def main() -> int:
    args = arguments()
    if args.serve:
        return serve(args.checkouts[0].resolve(), args.serve, args.keys)
    found: dict[tuple[int, int, Path], list[dict[str, Any]]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        load = generator(folder)
        nodes = {
            checkout: stack.enter_context(running(checkout, FIRST_PORT + PORTS_EACH * number, args.keys))
            for number, checkout in enumerate(args.checkouts)
        }
        for each in nodes.values():
            once(load, each, 1, 8, WARM_UP_S)
        for _ in range(args.repeats):
            for number, clients in CELLS:
                for checkout, each in nodes.items():
                    run = once(load, each, number, clients, args.seconds)
                    found.setdefault((number, clients, checkout), []).append(run)
    for (number, clients, checkout), runs in found.items():
        tell(number, clients, checkout, runs, found[number, clients, args.checkouts[0]])
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="key delivery of several checkouts, in turns")
    parser.add_argument("checkouts", type=Path, nargs="+", help="ratios are to the first")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each cell; medians are told")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a run")
    parser.add_argument("--keys", type=int, default=2_000_000, help="keys in stock at the beginning")
    parser.add_argument("--serve", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def serve(checkout: Path, port: int, keys: int) -> int:
    """Run two nodes of a checkout until the standard input ends: a process of its own, with its code."""
    sys.path[:0] = [str(checkout / "benchmarks" / "kme"), str(checkout / "benchmarks")]
    import delivery

    delivery.PORTS = {delivery.A: port, delivery.B: port + 100}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        delivery.prepare(folder)
        delivery.fill(folder, keys)
        kmes = [stack.enter_context(delivery.running_kme(folder, kme)) for kme in (delivery.A, delivery.B)]
        print(json.dumps({"folder": name, "port": port, "pids": [kme.pid for kme in kmes]}), flush=True)
        sys.stdin.read()
    return 0


@contextmanager
def running(checkout: Path, port: int, keys: int) -> Iterator[dict[str, Any]]:
    """Have a process serve a checkout; yields where."""
    process = subprocess.Popen(
        [sys.executable, __file__, checkout, "--serve", str(port), "--keys", str(keys)],
        env={**os.environ, "PYTHONPATH": str(checkout.resolve() / "src")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        raise RuntimeError(f"the nodes of {checkout} did not start")
    try:
        yield json.loads(line)
    finally:
        process.communicate("")


def generator(folder: Path) -> Path:
    """Compile the load generator."""
    out = folder / "kmsload"
    command = ["cc", "-O2", "-pthread", "-o", out, HERE / "kmsload.c", "-lssl", "-lcrypto"]
    subprocess.run(command, check=True, capture_output=True)
    return out


def once(load: Path, nodes: dict[str, Any], number: int, clients: int, seconds: float) -> dict[str, Any]:
    """Load the two nodes of a checkout for a while."""
    folder, port = nodes["folder"], nodes["port"]
    ends = ((f"{folder}/sae-a", ("-c", "-k", "-C")), (f"{folder}/sae-b", ("-d", "-e", "-D")))
    tls = [
        word
        for end, letters in ends
        for letter, file in zip(letters, ("cert.pem", "key.pem", "ca.pem"), strict=True)
        for word in (letter, f"{end}/{file}")
    ]
    where = ["-A", f"127.0.0.1:{port}", "-B", f"127.0.0.1:{port + 100}", "-M", "sae-a", "-S", "sae-b"]
    what = ["-m", "pair", "-s", "256", "-n", str(number), "-t", str(clients), "-T", str(seconds)]
    before_s = [processor_s(pid) for pid in nodes["pids"]]
    done = subprocess.run([load, *where, *tls, *what], capture_output=True, text=True, check=True)
    run: dict[str, Any] = json.loads(done.stdout)
    spent_s = [processor_s(pid) - before for pid, before in zip(nodes["pids"], before_s, strict=True)]
    run["processor_ms"] = [1e3 * each / max(1, run["ok"]) for each in spent_s]
    return run


def processor_s(pid: int) -> float:
    """Return how long a process has had a processor."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tell(
    number: int, clients: int, checkout: Path, runs: list[dict[str, Any]], first: list[dict[str, Any]]
) -> None:
    def median(runs: list[dict[str, Any]], pick: Any) -> float:
        return statistics.median(pick(each) for each in runs)

    per_s = median(runs, lambda each: each["ok_per_s"])
    processor_ms = median(runs, lambda each: sum(each["processor_ms"]))
    figures = {
        "number": number,
        "clients": clients,
        "checkout": str(checkout),
        "op_per_s": round(per_s, 1),
        "op_per_s_to_first": round(per_s / median(first, lambda each: each["ok_per_s"]), 2),
        "processor_ms": round(processor_ms, 2),
        "processor_to_first": round(processor_ms / median(first, lambda each: sum(each["processor_ms"])), 2),
        "enc_p99_ms": round(median(runs, lambda each: each["enc_or_get"]["p99_ms"]), 1),
        "dec_p99_ms": round(median(runs, lambda each: each["dec"]["p99_ms"]), 1),
        "errors": sum(each["err"] + each["mismatch"] for each in runs),
    }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    sys.exit(main())
