"""Plays a script of faults on a running network, and tells what the network says while it does.

The script runs here, not in the network: Ctrl-C ends it, and what it has broken is mended on the way out.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from openqci.cli.fault_desk import ask_network, running_report
from openqci.cli.fault_script import Injection, Script, Step, Wait
from openqci.cli.up.fault_orders import Clear, Inject
from openqci.core.errors import ConfigurationError, OpenQCIError
from openqci.twin.faults import FaultOrder

LOOK_EVERY_S = 0.5


class NotComeAbout(OpenQCIError):
    """What a script waits for has not come about in its time."""


class Player:
    """One performance of a script. With ``as_json`` every line is an object: a step's word or an event."""

    def __init__(self, script: Script, data_dir: Path, by: str, *, as_json: bool = False) -> None:
        self._script, self._data_dir, self._by, self._as_json = script, data_dir, by, as_json
        self._named: dict[str, str] = {}
        self._begun: list[str] = []
        self._told = 0
        self._began_s = time.monotonic()

    def play(self) -> int:
        """Play all steps; 0 when the story came about as written, 1 if a wait was in vain."""
        self._told = max((event["number"] for event in self._report()["events"]), default=0)
        self._say(self._script.title)
        try:
            for step in self._script.steps:
                self._play(step)
            self._tell_events(self._report())
        except NotComeAbout as error:
            print(f"openqci: {error}", file=sys.stderr)
            return 1
        finally:
            self._mend()
        return 0

    def _play(self, step: Step) -> None:
        self._watch(step.after_s)
        if step.say:
            self._say(step.say)
        if step.inject is not None:
            self._inject(step.inject)
        elif step.clear is not None:
            self._clear(self._named[step.clear])
        elif step.lift is not None:
            from openqci.cli.alarm import rule

            rule(self._data_dir, step.lift.hop, step.lift.officer, step.lift.verdict)
        elif step.wait is not None:
            self._wait(step.wait)

    def _inject(self, injection: Injection) -> None:
        order = FaultOrder(injection.kind, injection.target, self._by, injection.for_s, injection.added_qber)
        (fault_id,) = ask_network(self._data_dir, Inject(order)).fault_ids
        self._named[injection.name] = fault_id
        self._begun.append(fault_id)

    def _clear(self, fault_id: str) -> None:
        """End a fault; one whose own time is over is ended already."""
        if any(fault["fault_id"] == fault_id for fault in self._report()["faults"]):
            ask_network(self._data_dir, Clear(self._by, fault_id))
        self._begun.remove(fault_id)

    def _mend(self) -> None:
        """End all that still stands of this script."""
        for fault_id in list(self._begun):
            try:
                self._clear(fault_id)
            except ConfigurationError as error:
                # The network may have stopped: its faults have ended with it.
                print(f"openqci: {fault_id} was not cleared: {error}", file=sys.stderr)

    def _watch(self, seconds: float) -> None:
        """Let time pass, and tell what happens in it."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            self._tell_events(self._report())
            time.sleep(min(LOOK_EVERY_S, left_s))

    def _wait(self, wait: Wait) -> None:
        end_s = time.monotonic() + wait.within_s
        while True:
            report = self._report()
            self._tell_events(report)
            if is_so(wait, report):
                return
            if time.monotonic() > end_s:
                raise NotComeAbout(f"{wait.hop}: no {wait.state} within {wait.within_s:g} s")
            time.sleep(LOOK_EVERY_S)

    def _report(self) -> dict[str, Any]:
        return running_report(self._data_dir)

    def _tell_events(self, report: dict[str, Any]) -> None:
        for event in report["events"]:
            if event["number"] > self._told:
                self._told = event["number"]
                print(
                    json.dumps(event) if self._as_json else f"  {event['at'][11:19]}  {event['text']}",
                    flush=True,
                )

    def _say(self, text: str) -> None:
        elapsed_s = time.monotonic() - self._began_s
        said = {"say": text, "elapsed_s": round(elapsed_s, 1)}
        print(json.dumps(said) if self._as_json else f"[{elapsed_s:5.1f} s] {text}", flush=True)


def is_so(wait: Wait, report: dict[str, Any]) -> bool:
    """Tell whether a hop is as a script waits for it to be."""
    if wait.state == "alarm":
        return any(alarm["link_id"] == wait.hop for alarm in report["alarms"])
    for hop in report["hops"]:
        if hop["link_id"] == wait.hop:
            return not hop["trouble"] and hop["stock_bits"] > 0
    raise ConfigurationError(f"this network has no hop {wait.hop!r}")
