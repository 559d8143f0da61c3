"""What lies in ``deploy`` fits the software: commands, metric names, the two sites."""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from openqci.cli.main import command_line
from openqci.services.telemetry import Telemetry
from tests.kme.make import OPENQCI, openqci

DEPLOY = Path(__file__).parents[2] / "deploy"


def metric_names() -> set[str]:
    """Return every name that can stand in a query."""
    return {
        sample
        for metric in Telemetry().registry.collect()
        for sample in (
            metric.name,
            *(f"{metric.name}{end}" for end in ("_total", "_bucket", "_count", "_sum")),
        )
    }


def used_names(text: str) -> set[str]:
    return set(re.findall(r"openqci_kme_\w+", text))


def test_every_metric_of_the_dashboard_exists_and_every_panel_has_a_unit() -> None:
    dashboard: dict[str, Any] = json.loads((DEPLOY / "grafana" / "openqci-kme.json").read_text())
    assert len(dashboard["panels"]) >= 10
    for panel in dashboard["panels"]:
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        for target in panel["targets"]:
            names = used_names(target["expr"])
            assert names and names <= metric_names(), target["expr"]


def test_every_metric_of_the_alert_rules_exists() -> None:
    (group,) = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]:
        assert rule["labels"]["severity"] and rule["annotations"]["summary"]
        names = used_names(rule["expr"])
        assert names and names <= metric_names(), rule["expr"]


def test_the_commands_of_the_unit_and_the_container_are_understood() -> None:
    unit = (DEPLOY / "systemd" / "openqci-kme@.service").read_text()
    commands = [shlex.split(line)[1:] for line in re.findall(r"^ExecStart(?:Pre)?=(.*)$", unit, re.M)]
    container = (DEPLOY / "container" / "Containerfile").read_text()
    parts = [json.loads(part) for part in re.findall(r"^(?:ENTRYPOINT|CMD) (\[.*\])$", container, re.M)]
    commands.append(parts[0][1:] + parts[1])
    composition = yaml.safe_load((DEPLOY / "two-sites" / "compose.yaml").read_text())
    commands += [["kme", *service["command"]] for service in composition["services"].values()]
    for words in commands:
        assert callable(command_line(words).parse_args(words).run)


def test_the_two_sites_are_made_and_good(tmp_path: Path) -> None:
    script = shutil.copy(DEPLOY / "two-sites" / "init.sh", tmp_path)
    path = f"{OPENQCI.parent}:{os.environ['PATH']}"
    subprocess.run([script], env={**os.environ, "PATH": path}, check=True, capture_output=True)
    for site in ("site-a", "site-b"):
        openqci(tmp_path, "kme", "check", "--offline", "--config", f"sites/{site}/kme.toml")
