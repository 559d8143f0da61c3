"""``openqci kme init``: configuration, credentials and state folder of a new node, asked for or by flags."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openqci.services.kme_config import LoadedConfig

QUESTIONS = (
    # flag, what it is, default if nobody is asked (None: must be given)
    ("kme_id", "KME ID of this node", None),
    ("host", "name or address under which others reach it", "localhost"),
    ("sae", "IDs of its applications (SAEs), separated by commas", ""),
    ("peer", "KME ID of the node at the other end of the link", ""),
    ("peer_url", "address of that node's peer interface, https://HOST:PORT", None),
    ("peer_sae", "IDs of the applications there, separated by commas", ""),
    ("link", "ID of the link, the same at both nodes", None),
    ("module_url", "address of this end's QKD module, https://HOST:PORT", None),
    ("module_sae", "SAE ID of the other node at its module", None),
    ("module_credentials", "folder with cert.pem, key.pem and ca.pem for the module", "module"),
)
ONLY_WITH_PEER = frozenset({"peer_url", "peer_sae", "link", "module_url", "module_sae", "module_credentials"})


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci kme init``."""
    parser = verbs.add_parser(
        "init", help="make the configuration and state folder of a new node; asks for what no option says"
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where kme.toml, tls and state go")
    parser.add_argument("--kme-id", metavar="ID", help="KME ID of this node")
    parser.add_argument("--host", metavar="HOST", help="name or address under which others reach it")
    parser.add_argument(
        "--bind", metavar="ADDRESS", default="0.0.0.0", help="address it listens on (default 0.0.0.0)"
    )
    parser.add_argument(
        "--port-base",
        metavar="N",
        type=int,
        default=8443,
        help="port for applications; peers take the next, the operator the one after (default 8443)",
    )
    parser.add_argument(
        "--laboratory", action="store_true", help="accept key of simulated modules, and say so in every key"
    )
    parser.add_argument("--sae", metavar="IDS", help="its applications, separated by commas")
    parser.add_argument("--peer", metavar="ID", help="KME ID at the other end of the first link")
    parser.add_argument("--peer-url", metavar="URL", help="that node's peer interface")
    parser.add_argument("--peer-sae", metavar="IDS", help="the applications there, separated by commas")
    parser.add_argument("--link", metavar="ID", help="the first link's ID, the same at both nodes")
    parser.add_argument(
        "--leads", action="store_true", help="this end draws key and names it; set it at one end of a link"
    )
    parser.add_argument("--module-url", metavar="URL", help="this end's QKD module (ETSI GS QKD 014)")
    parser.add_argument("--module-sae", metavar="ID", help="SAE ID of the other node at its module")
    parser.add_argument(
        "--module-credentials", metavar="DIR", help="cert.pem, key.pem and ca.pem for the module"
    )
    parser.add_argument(
        "--authority",
        metavar="DIR",
        type=Path,
        help="issue the node's certificate from this authority (openqci pki create)",
    )
    parser.add_argument(
        "--pkcs11-module",
        metavar="FILE",
        type=Path,
        help="keep the key-encryption key in a PKCS#11 token, through this library",
    )
    parser.add_argument("--pkcs11-token", metavar="LABEL", help="the token's label")
    parser.add_argument(
        "--pkcs11-pin-file", metavar="FILE", type=Path, help="file with the token's PIN, mode 0600"
    )
    parser.add_argument(
        "--replace-token-keys",
        action="store_true",
        help="destroy what the token holds of a node of the same name",
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="make the state folder alone, for the kme.toml that is there: after `openqci kme zeroise`",
    )
    parser.set_defaults(run=init_node)


def init_node(args: argparse.Namespace) -> int:
    """Write configuration, credentials and state folder; nothing that is there is overwritten."""
    return init_again(args) if args.again else init_anew(args)


def init_again(args: argparse.Namespace) -> int:
    """Make the state folder of a node that was zeroised; configuration and certificates stay."""
    from openqci.services.kme_config_file import load_config
    from openqci.services.state_folder import StateFolder

    loaded = load_config(args.folder / "kme.toml")
    StateFolder.make(loaded, replace_token_keys=args.replace_token_keys)
    print(f"{loaded.state_dir}\nnext: openqci kme run --config {loaded.file}")
    return 0


def init_anew(args: argparse.Namespace) -> int:
    """Make everything of a new node."""
    from openqci.core.errors import ConfigurationError, Fault
    from openqci.services.data_directory import unusable_named
    from openqci.services.kme_config_file import load_config
    from openqci.services.state_folder import StateFolder

    file = args.folder / "kme.toml"
    if file.exists():
        raise ConfigurationError(Fault(str(file), "", "is there already; edit it, or choose another folder"))
    answers = _answers(args, _ask if sys.stdin.isatty() else None)
    with unusable_named(args.folder):
        args.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = file.with_name("kme.toml.part")
        part.write_text(configuration_text(args, answers), "utf-8")
        try:
            loaded = load_config(part)
            if args.authority is not None:
                _issue(args.authority, loaded, answers["host"])
            StateFolder.make(loaded, replace_token_keys=args.replace_token_keys)
        except ConfigurationError:
            part.unlink()
            raise
        part.replace(file)
    print(f"{file}\n{loaded.state_dir}")
    print(f"next: openqci kme check --config {file}")
    return 0


def _answers(args: argparse.Namespace, ask: "Callable[[str, str | None], str] | None") -> dict[str, str]:
    """Return the answer to every question: from a flag, else asked for, else its default."""
    from openqci.core.errors import ConfigurationError

    answers: dict[str, str] = {}
    missing = []
    for name, question, default in QUESTIONS:
        if name in ONLY_WITH_PEER and not answers.get("peer"):
            continue
        given: str | None = getattr(args, name)
        if given is None and ask is not None:
            given = ask(question, default)
        if given is None and default is None:
            missing.append(f"--{name.replace('_', '-')} is missing ({question})")
        answers[name] = given if given is not None else default or ""
    if missing:
        raise ConfigurationError("; ".join(missing))
    return answers


def _ask(question: str, default: str | None) -> str:
    while True:
        answer = input(f"{question}{f' [{default}]' if default else ''}: ").strip()
        if answer or default is not None:
            return answer or default or ""


def _issue(folder: Path, loaded: "LoadedConfig", host: str) -> None:
    from openqci.services.pki import CertificateAuthority, write_credentials

    authority = CertificateAuthority.open(folder)
    write_credentials(
        loaded.path(loaded.config.tls.certificate).parent,
        authority.issue_kme(loaded.kme_id, [host]),
        authority,
    )


def configuration_text(args: argparse.Namespace, answers: dict[str, str]) -> str:
    """Return the text of ``kme.toml``. JSON's strings and lists are TOML's."""
    quoted = json.dumps
    bind = f"[{args.bind}]" if ":" in args.bind else args.bind
    lines = [
        "# One key management entity. All keys: docs/reference/kme-config.md",
        "# Paths are relative to this file.",
        "version = 1",
        "",
        "[node]",
        f"kme_id = {quoted(answers['kme_id'])}",
        'state_dir = "state"',
        f"mode = {quoted('laboratory' if args.laboratory else 'production')}",
        "",
        "[tls]",
        'certificate = "tls/cert.pem"',
        'key = "tls/key.pem"',
        'authority = "tls/ca.pem"',
        "",
        "[listen]",
        f"sae = {quoted(f'{bind}:{args.port_base}')}",
        f"peer = {quoted(f'{bind}:{args.port_base + 1}')}",
        f"operator = {quoted(f'127.0.0.1:{args.port_base + 2}')}",
    ]
    if args.pkcs11_module is not None:
        lines += [
            "",
            "[kek]",
            'kind = "pkcs11"',
            f"module = {quoted(str(args.pkcs11_module))}",
            *([f"token = {quoted(args.pkcs11_token)}"] if args.pkcs11_token else []),
            *([f"pin_file = {quoted(str(args.pkcs11_pin_file.absolute()))}"] if args.pkcs11_pin_file else []),
        ]
    for sae in _listed(answers["sae"]):
        lines += ["", "[[sae]]", f"id = {quoted(sae)}"]
    if answers["peer"]:
        lines += [
            "",
            "[[peer]]",
            f"kme_id = {quoted(answers['peer'])}",
            f"url = {quoted(answers['peer_url'])}",
            f"saes = {quoted(_listed(answers['peer_sae']))}",
            "",
            "[[link]]",
            f"id = {quoted(answers['link'])}",
            f"peer = {quoted(answers['peer'])}",
            f"leads = {quoted(bool(args.leads))}",
            "",
            "[link.etsi014]",
            f"url = {quoted(answers['module_url'])}",
            f"peer_sae_id = {quoted(answers['module_sae'])}",
            *(
                f"{key} = {quoted(str(Path(answers['module_credentials'], name)))}"
                for key, name in (("certificate", "cert.pem"), ("key", "key.pem"), ("authority", "ca.pem"))
            ),
            f"simulated = {quoted(bool(args.laboratory))}",
        ]
    return "\n".join(lines) + "\n"


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
