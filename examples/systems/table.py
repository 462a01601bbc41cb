"""Run every example of this folder and write what they show as the table of docs/systems.md.

python examples/systems/table.py docs/systems.md
"""

import json
import subprocess
import sys
from pathlib import Path

OTHERS = {"shown.py", "table.py"}
HEAD = "| system | before | off by at most | nodes | bytes | ms |\n|---|---|---|---|---|---|\n"


def rows(script: Path) -> list[dict[str, object]]:
    """Return what an example shows."""
    ran = subprocess.run(
        [sys.executable, script, "--json", "--time"], stdout=subprocess.PIPE, text=True, check=True
    )
    return [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]


def line(row: dict[str, object], script: str) -> str:
    """Return a row of the table."""
    nodes = "{} → {}".format(*row["nodes"])
    nbytes = " → ".join(f"{n / 1e6:,.1f} MB" for n in row["nbytes"])
    system = f"{row['system']} (`{script}`)"
    figures = f"{row['error']:.1e} | {nodes} | {nbytes} | {row['ms']:.2f}"
    return f"| {system} | `{row['before']}` | {figures} |\n"


def main() -> None:
    scripts = sorted(p for p in Path(__file__).parent.glob("*.py") if p.name not in OTHERS)
    made = HEAD + "".join(line(row, each.name) for each in scripts for row in rows(each))
    page = Path(sys.argv[1])
    start, rest = page.read_text("utf-8").split("<!-- table -->\n", 1)
    end = rest.partition("<!-- end -->\n")[2]
    page.write_text(f"{start}<!-- table -->\n{made}<!-- end -->\n{end}", "utf-8")


if __name__ == "__main__":
    main()
