"""``openqci kme backup`` and ``restore``: everything of a node but its key."""

import argparse
import sys
from pathlib import Path


def add_parsers(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register both verbs."""
    backup = verbs.add_parser("backup", help="save everything of a resting node but its key")
    backup.add_argument("--config", metavar="FILE", type=Path, default=Path("kme.toml"), help="its kme.toml")
    backup.add_argument("--out", metavar="FILE", type=Path, required=True, help="the archive to write")
    backup.set_defaults(run=back_up)
    restore = verbs.add_parser("restore", help="make a node anew from its backup, with an empty store")
    restore.add_argument("archive", metavar="ARCHIVE", type=Path, help="what backup wrote")
    restore.add_argument("--into", metavar="DIR", type=Path, required=True, help="the new node's folder")
    restore.add_argument(
        "--replace-token-keys",
        action="store_true",
        help="destroy what the token holds of the node that is lost",
    )
    restore.set_defaults(run=restore_node)


def back_up(args: argparse.Namespace) -> int:
    """Write the archive of a node."""
    from openqci.services.backup import write_backup
    from openqci.services.kme_config_file import load_config

    names, left_out = write_backup(load_config(args.config), args.out)
    for path in left_out:
        print(f"openqci: not in the archive, since it is outside the node's folder: {path}", file=sys.stderr)
    print(f"{args.out}: {len(names)} files, no key of the store")
    return 0


def restore_node(args: argparse.Namespace) -> int:
    """Make a node from an archive."""
    from openqci.services.backup import restore_backup

    config = restore_backup(args.archive, args.into, replace_token_keys=args.replace_token_keys)
    print(f"{config}\nthe store is empty and new: the peers destroy what they held with the old one")
    print(f"next: openqci kme check --config {config}")
    return 0
