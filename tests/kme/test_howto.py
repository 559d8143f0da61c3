"""The how-to with two KMEs, followed word by word on one machine."""

import base64
import json
import re
import shlex
import subprocess
from contextlib import closing
from pathlib import Path

from tests.kme.make import Process, keys_in_time, openqci, running, sae, status_of
from tests.system.make import free_port_base

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "two-kmes.md"
RUNS_ON = ("kme run", "kme modules modules")


def commands(port_base: int) -> list[list[str]]:
    """Return the page's commands for one machine: one name for both sites, and ports of our own."""
    found = []
    for line in re.findall(r"^\$ (.*)$", PAGE.read_text(), re.M):
        at_b = line.replace("https://site-b.example:844", "https://localhost:B44")
        words = shlex.split(
            at_b.replace("site-a.example", "localhost").replace("site-b.example", "localhost")
        )
        if words[:3] == ["openqci", "kme", "init"]:
            words += ["--bind", "127.0.0.1", "--port-base"]
            words += [str(port_base + (10 if "site-b" in words else 0))]
        if "--init" in words:
            words += ["--port-base", str(port_base + 20)]
        words = ["127.0.0.1" if word == "0.0.0.0" else word for word in words]
        found.append([_ports(word, port_base) for word in words])
    return found


def _ports(word: str, base: int) -> str:
    for written, port in (("B443", 10), ("B444", 11), ("8443", 0), ("8444", 1), ("9500", 20), ("9501", 21)):
        word = word.replace(f":{written}", f":{base + port}")
    return word


def test_the_howto_leads_to_a_key_at_both_ends(tmp_path: Path) -> None:
    base = free_port_base(40, 10000)
    steps = commands(base)
    curls = [words for words in steps if words[0] == "curl"]
    services = []
    for words in steps:
        text = " ".join(words[1:])
        if text.startswith(RUNS_ON) and "--init" not in words:
            services.append(Process(tmp_path, f"service-{len(services)}", *words[1:]))
    modules, node_a, node_b = services
    before = [words for words in steps if words[0] != "curl" and "run" not in words]
    zeroise = before.pop()
    status = before.pop()
    for words in before:
        if words == ["openqci", "kme", "modules", "modules"]:
            modules.start()
        elif words[0] == "openqci":
            openqci(tmp_path, *words[1:])
        else:
            subprocess.run(words, cwd=tmp_path, check=True)
    with running(node_a, node_b):
        try:
            openqci(tmp_path, "kme", "check", "--config", "site-a/kme.toml")
            assert "kme-a" in openqci(tmp_path, *status[1:]).stdout
            with closing(sae(tmp_path, "app-a", base)) as master:
                answer = keys_in_time(master, "app-b", 2)
            assert answer.status == 200
            for key_id, key in zip(answer.key_ids, answer.keys, strict=True):
                fetch = [word.replace("KEY_ID", key_id) for word in curls[1]]
                done = subprocess.run(
                    [*fetch, "-s"], cwd=tmp_path, capture_output=True, text=True, check=True
                )
                assert key_id in done.stdout
                assert _key_in(done.stdout) == key
            first = subprocess.run(
                [*curls[0], "-s"], cwd=tmp_path, capture_output=True, text=True, check=True
            )
            assert "key_ID" in first.stdout
            link = status_of(tmp_path, "site-a/kme.toml")["links"][0]
            assert link["deposited_bytes"] > 0 and link["refused_deposits"] == 0
            # The last resort: the officer alone may, the node stops, and nothing of it opens again.
            openqci(tmp_path, "kme", "zeroise", "--config", "site-a/kme.toml", "--yes", expect=1)
            openqci(tmp_path, *zeroise[1:])
            assert node_a.process is not None and node_a.process.wait(30) == 0
            assert sorted(path.name for path in (tmp_path / "site-a/state").iterdir()) == ["audit", "lock"]
            openqci(tmp_path, "kme", "run", "--config", "site-a/kme.toml", expect=2)
        finally:
            modules.kill()


def _key_in(body: str) -> bytes:
    (key,) = json.loads(body)["keys"]
    return base64.b64decode(key["key"])
