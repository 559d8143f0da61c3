"""Errors, by who must act on them. No message ever carries key material."""

from dataclasses import dataclass, field


class OpenQCIError(Exception):
    """Base of every error that OpenQCI raises on purpose."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with an input file: where it is and what was expected there."""

    file: str
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.path}: {self.message}" if self.path else f"{self.file}: {self.message}"


class ConfigurationError(OpenQCIError):
    """The operator's input is wrong. Lists every fault, not only the first."""

    def __init__(self, *faults: Fault | str) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in faults))


@dataclass(eq=False)
class RequestRefused(OpenQCIError):
    """An application asked for something it cannot have; carries the standard's status and message.

    Not frozen, though nobody changes it: the interpreter writes the traceback into a raised exception.
    """

    status: int
    message: str
    details: tuple[dict[str, object], ...] = ()
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.status} {self.message}"


class PeerMisbehaved(OpenQCIError):
    """The other end of a conversation broke the protocol; names what was expected and what came."""


class KeyUnavailable(OpenQCIError):
    """Not enough key where it is needed; says how much there is."""

    def __init__(self, message: str, *, wanted_bytes: int, available_bytes: int) -> None:
        self.wanted_bytes = wanted_bytes
        self.available_bytes = available_bytes
        super().__init__(f"{message}: wanted {wanted_bytes} bytes, available {available_bytes}")


class IntegrityError(OpenQCIError):
    """Stored or received key material failed its check. The link stops and the evidence stays."""


class OutsideModel(OpenQCIError):
    """A physical parameter lies outside the range for which the model holds."""

    def __init__(self, parameter: str, value: object, valid_range: str) -> None:
        self.parameter = parameter
        super().__init__(f"{parameter} = {value!r} is outside the model; expected {valid_range}")


def invariant(holds: bool, statement: str) -> None:
    """Assert an invariant of the key path; unlike ``assert`` it stays on under ``python -O``."""
    if not holds:
        raise IntegrityError(f"invariant broken: {statement}")
