"""A published protocol on your copy of its data; our rows beside those that the paper printed.

    python workflows/protocol.py workflows/abdomen_ct.yaml DATA OUT --workers 2

DATA is the folder that the YAML file describes, which also says where the scans come from. Brings
them onto the protocol's grid, trains where the protocol trains (or takes ``--weights``), registers
the protocol's pairs with each of its settings and measures them as the paper does. Prints a table,
also in ``OUT/table.md`` and ``OUT/table.csv``. The same command again goes on where it was.
"""

# ruff: noqa: T201

import argparse
import sys
from pathlib import Path

from cohort.commands.crew import device_of, on_cards
from cohort.config.protocol import read_protocol
from cohort.endings import ended
from cohort.engine.team import Team
from cohort.report.publish import markdown, write_file
from cohort.studies.protocol import Resources, run_protocol
from cohort.studies.protocol_rows import failures, notes, protocol_rows, table_text


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("protocol", type=Path, help="YAML file, such as workflows/oasis.yaml")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=Path, help="of a model, in place of training")
    parser.add_argument("--workers", type=int, help="0, the default, is a plain loop")
    parser.add_argument("--device", help="cpu or cuda; one worker a card unless --workers says")
    parser.add_argument("--trust-code", action="store_true", help="as for cohort register")
    asked = parser.parse_args()
    protocol = read_protocol(asked.protocol)
    device = device_of(asked.device)
    team = on_cards(Team(asked.workers or 0), device, asked.workers)
    resources = Resources(asked.weights, team, device, asked.trust_code)
    done = run_protocol(
        protocol, asked.data, asked.out, resources, lambda said: print(said, file=sys.stderr)
    )
    rows = protocol_rows(protocol, done)
    lines = [f"# {protocol.title}\n", markdown(*table_text(protocol, rows))]
    said = (*notes(protocol, asked.weights is not None), *failures(done))
    lines += ["".join(f"- {one}\n" for one in said)]
    write_file(asked.out / "table.csv", rows.write_csv().encode())
    write_file(asked.out / "table.md", "\n".join(lines).encode())
    print("\n".join(lines))
    if rows["failed"].sum():
        sys.exit(1)


if __name__ == "__main__":
    ended(main)
