"""Show what a change gains in several experiments: paired differences with 95 % intervals, as a table and a picture.

python tools/overview.py results/overview.yaml
python tools/overview.py mine.yaml --output comparison --metric token_semantics/S_C

The file names the results to compare; tools/experiments/overview.py explains it. Writes overview.md and overview.png,
next to the file or into --output.
"""

import argparse
import sys
from pathlib import Path

from command_line import directory, failed, quiet_in_pipes
from experiments.overview import draw_overview, read_overview, to_markdown


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    folder = args.output or args.file.parent
    try:
        overview = read_overview(args.file, first=args.metric)
        draw_overview(overview, folder / "overview.png")
        text = to_markdown(overview)
        (folder / "overview.md").write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        return failed(parser.prog, error)
    print(text)
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE.yaml", help="what to compare")
    parser.add_argument("--output", type=directory, metavar="DIR", help="default: the folder of the file")
    parser.add_argument("--metric", metavar="TASK/NAME", help="of the file, to draw; default: its first")
    return parser


if __name__ == "__main__":
    quiet_in_pipes()
    sys.exit(main())
