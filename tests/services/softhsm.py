"""A PKCS#11 token of SoftHSM2, made anew for a test run."""

import functools
import os
import subprocess
import tempfile
from pathlib import Path

TOKEN, PIN = "openqci-test", "4711"
MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so")


@functools.cache
def softhsm() -> tuple[Path, Path]:
    """Make a token, once in a process: the library reads its settings once. Return module and PIN file."""
    module = next((Path(path) for path in MODULES if Path(path).exists()), None)
    assert module is not None, "SoftHSM2 is not installed: see `make browser`"
    folder = Path(tempfile.mkdtemp(prefix="softhsm-"))
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    command = ["softhsm2-util", "--init-token", "--free", "--label", TOKEN, "--pin", PIN, "--so-pin", "0815"]
    subprocess.run(command, check=True, capture_output=True)
    pin_file = folder / "pin"
    pin_file.write_text(f"{PIN}\n")
    pin_file.chmod(0o600)
    return module, pin_file
