"""What becomes of measured rows: bench/results/latest.json, a table and a figure (own SVG), and both put into README.md."""

import json
import re
from html import escape

from servers import ROOT

JSON_PATH = ROOT / "bench/results/latest.json"
SVG_PATH = ROOT / "docs/figures/bench.svg"
README_PATH = ROOT / "README.md"
BEGIN, END = "<!-- bench:begin (written by `make bench`) -->", "<!-- bench:end -->"
# Above this load average at its start a measurement is said to be disturbed. (The parts before leave up to 2 behind.)
IDLE_LOAD = 2.5
TITLES = {
    "get_set": "One command at a time",
    "pipelined": "Pipelined",
    "durable": "Both sync before they answer",
    "mix": "Reads beside committed writes",
    "memory": "Memory",
    "hit_ratio": "Hits of a cache",
    "restart": "Restart",
    "restart_checkpoint": "Restart from a checkpoint",
    "checkpoint": "Beside a checkpoint",
    "tier": "Larger than memory",
    "disk": "On disk",
    "loops": "Event loops",
}


def load() -> dict:
    """The last results, by part."""
    return json.loads(JSON_PATH.read_text()) if JSON_PATH.exists() else {}


def save(results: dict):
    """Keeps the results."""
    JSON_PATH.parent.mkdir(parents=True, exist_ok=True)
    JSON_PATH.write_text(json.dumps({part: results[part] for part in TITLES if part in results}, indent=1) + "\n")


def number(value: float) -> str:
    """Three significant digits, thousands as k, millions as M."""
    for limit, unit in ((1e6, "M"), (1e4, "k")):
        if value >= limit:
            divided = value / (1e6 if unit == "M" else 1e3)
            return f"{divided:.3g} {unit}" if divided < 1000 else f"{divided:.0f} {unit}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def advantage(row: dict, value: float | None = None) -> float:
    """How many times better than the other side: above 1 is better, whatever the unit."""
    ratio = row["ratio"] if value is None else value
    return 1 / ratio if row["lower_is_better"] else ratio


def met(row: dict) -> bool | None:
    """Whether the target is reached; None without one."""
    if row["target"] is None:
        return None
    return row["ratio"] <= row["target"] if row["lower_is_better"] else row["ratio"] >= row["target"]


def target_text(row: dict) -> str:
    """The target as one reads it."""
    return "" if row["target"] is None else f"{'at most' if row['lower_is_better'] else 'at least'} {row['target']:g}x"


def line(row: dict) -> str:
    """One row for the terminal."""
    verdict = {None: "", True: f"   ok ({target_text(row)})", False: f"   MISSED ({target_text(row)})"}[met(row)]
    cpu = f"   CPU {row['our_cpu_us']:.2f} : {row['their_cpu_us']:.2f} us/op" if row["our_cpu_us"] is not None else ""
    return f"{row['name']:<38} {number(row['ours']):>8} : {number(row['theirs']):>8} {row['unit']:<6} {row['ratio']:.2f}x{cpu}{verdict}"


def table(results: dict) -> str:
    """The table of the README."""
    lines = ["| | Bowline | other | ratio | server CPU, us/op | aim |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    for part in TITLES:
        for row in results.get(part, {}).get("rows", []):
            cpu = "" if row["our_cpu_us"] is None else f"{row['our_cpu_us']:.2f} : {row['their_cpu_us']:.2f}"
            aim = {None: "", True: f"{target_text(row)}: met", False: f"{target_text(row)}: **missed**"}[met(row)]
            lines.append(f"| {row['name']} (against {row['against']}) | {number(row['ours'])} {row['unit']} | "
                         f"{number(row['theirs'])} {row['unit']} | {row['ratio']:.2f}x | {cpu} | {aim} |")
    return "\n".join(lines)


def conditions(results: dict) -> str:
    """Where and when, in a sentence."""
    newest = max((part["machine"] for part in results.values()), key=lambda machine: machine["at"])
    disturbed = [title for part, title in TITLES.items()
                 if part in results and results[part]["machine"]["load_average"] > IDLE_LOAD]
    warning = f" **Disturbed by other work on the machine: {', '.join(disturbed)}.**" if disturbed else ""
    return (f"Measured {newest['at']} on {newest['cores']} cores of {newest['cpu']}, Linux {newest['kernel']}, against Redis "
            f"{newest['redis']} in the same run: server on one core, load on the other, 1 M keys of 16 bytes, values of 32 "
            "bytes, medians of three. Bowline answers every write after `fdatasync`. Repeat it with `make bench`." + warning)


def svg(results: dict) -> str:
    """Bars: how many times better than the other side; the tick on a bar's line is the aim."""
    left, right, width, row_height, head_height = 330, 190, 960, 30, 34
    rows = [row for part in TITLES for row in results.get(part, {}).get("rows", [])]
    largest = max([advantage(row) for row in rows] + [advantage(row, row["target"]) for row in rows if row["target"]] + [1.5])
    scale = (width - left - right) / largest
    body, y = [], 84
    axis_top = y - 8
    for part, title in TITLES.items():
        part_rows = results.get(part, {}).get("rows", [])
        if not part_rows:
            continue
        body.append(f'<text x="24" y="{y + 20}" class="part">{escape(title)}</text>')
        y += head_height
        for row in part_rows:
            factor = advantage(row)
            bar = max(2.0, factor * scale)
            colour = "#1f7a8c" if factor >= 1 else "#b5651d"
            middle = y + row_height / 2
            body.append(f'<text x="{left - 10}" y="{middle - 1}" class="name">{escape(row["name"])}</text>')
            body.append(f'<text x="{left - 10}" y="{middle + 10}" class="against">against {escape(row["against"])}</text>')
            body.append(f'<rect x="{left}" y="{y + 5}" width="{bar:.1f}" height="{row_height - 12}" rx="2" fill="{colour}"/>')
            mark = bar
            if row["target"] is not None:
                x = left + advantage(row, row["target"]) * scale
                mark = max(bar, x - left)
                body.append(f'<path d="M{x:.1f} {y + 2}v{row_height - 6}" stroke="#111" stroke-width="2"/>')
            body.append(
                f'<text x="{left + mark + 8:.1f}" y="{middle + 3}" class="value"><tspan font-weight="600">{factor:.2f}x</tspan>'
                f'<tspan class="raw" dx="6">{number(row["ours"])} : {number(row["theirs"])} {escape(row["unit"])}</tspan></text>'
            )
            y += row_height
    axis = []
    step = 0.5 if largest <= 4 else 1 if largest <= 10 else 5
    for i in range(int(largest / step) + 1):
        x = left + i * step * scale
        stroke = 'stroke="#555" stroke-dasharray="4 3"' if i * step == 1 else 'stroke="#e2e2e2"'
        axis.append(f'<path d="M{x:.1f} {axis_top}V{y + 4}" {stroke}/>')
        axis.append(f'<text x="{x:.1f}" y="{y + 20}" class="tick">{i * step:g}x</text>')
    machine = max((part["machine"] for part in results.values()), key=lambda m: m["at"])
    where = f"{machine['cores']} cores of {machine['cpu']}, Linux {machine['kernel']}, {machine['at']}, commit {machine['commit']}"
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y + 56}" width="{width}" height="{y + 56}" role="img"
 aria-label="Bowline against Redis {escape(machine['redis'])}: how many times better, for each measured load">
<style>text{{font-family:system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#1a1a1a}}
.title{{font-size:20px;font-weight:600}}.sub{{font-size:12px;fill:#555}}.part{{font-size:13px;font-weight:600}}
.name{{font-size:12.5px;text-anchor:end}}.against{{font-size:9.5px;text-anchor:end;fill:#777}}.value{{font-size:12px;paint-order:stroke;stroke:#fff;stroke-width:3px}}
.raw{{font-size:10.5px;fill:#666}}.tick{{font-size:11px;fill:#666;text-anchor:middle}}</style>
<rect width="100%" height="100%" fill="#fff"/>
<text x="24" y="34" class="title">Bowline against Redis {escape(machine['redis'])}: how many times better</text>
<text x="24" y="56" class="sub">Longer is better; 1x is the same. Writes of Bowline are answered after fdatasync. The black tick is the aim.</text>
{chr(10).join(axis)}
{chr(10).join(body)}
<text x="24" y="{y + 44}" class="sub">{escape(where)}. Repeat: make bench</text>
</svg>
"""


def publish(results: dict):
    """Writes the figure and puts table and figure between the markers of the README."""
    SVG_PATH.parent.mkdir(parents=True, exist_ok=True)
    SVG_PATH.write_text(svg(results))
    readme = README_PATH.read_text()
    if BEGIN not in readme or END not in readme:
        raise RuntimeError(f"{README_PATH} has lost its markers {BEGIN} and {END}")
    block = f"{BEGIN}\n![Bowline against Redis](docs/figures/bench.svg)\n\n{table(results)}\n\n{conditions(results)}\n{END}"
    README_PATH.write_text(re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: block, readme, flags=re.S))
