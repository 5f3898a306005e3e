"""``python -m server``: the daemon without the command-line extra."""

from __future__ import annotations

import argparse
import os
import sys

from server.configuration import ConfigurationError, descriptions, load


def main() -> int:
    """Reads the flags, one for each setting, and runs the daemon."""
    parser = argparse.ArgumentParser(prog="python -m server", description="Run the daemon.")
    parser.add_argument("--config", help="TOML file with settings", metavar="FILE")
    for name, text in descriptions().items():
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, help=text, metavar="VALUE")
    try:
        configuration, _ = load(vars(parser.parse_args()), os.environ)
    except ConfigurationError as error:
        parser.error(str(error))
    from server.daemon import serve  # noqa: PLC0415 - heavy; not for --help

    return serve(configuration)


if __name__ == "__main__":
    sys.exit(main())
