"""The main numbers as bars, in an SVG without any library."""

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from report import Row

# benchmark, column, title
PANELS = [
    ("herd, one host", "bytes x", "16 first downloads: bytes read from the back end, times the image"),
    ("herd, one host", "ratio", "16 first downloads: last client done, times a single fetch"),
    ("herd, one host", "first byte p50 ms", "16 first downloads: first byte, median, ms"),
    ("herd, four hosts", "bytes x", "Four hosts: bytes read from the back end, times the image"),
    ("verified fill, file", "MiB/s", "First download from a file store, MiB/s"),
    ("hit", "16 streams MiB/s", "Hit, 16 streams, MiB/s"),
    ("hit", "CPU s/GiB, 16 streams", "Hit, 16 streams: processor seconds per GiB"),
]
_WIDTH, _BAR, _LEFT = 760, 20, 230


def save(rows: Sequence[Row], path: Path) -> None:
    """One panel for each line of PANELS that has rows."""
    parts: list[str] = []
    y = 10
    for bench, column, title in PANELS:
        found = [(row.system, row.values[column]) for row in rows if row.bench == bench and row.values.get(column)]
        bars = [(name, float(value)) for name, value in found if value is not None]
        if bars:
            y = _panel(parts, y, title, bars)
    size = f'width="{_WIDTH}" height="{y}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    path.write_text("\n".join([head, f'<rect {size} fill="#fff"/>', *parts, "</svg>"]) + "\n")


def _panel(parts: list[str], y: int, title: str, bars: Sequence[tuple[str, float]]) -> int:
    parts.append(f'<text x="10" y="{y + 14}" font-weight="bold">{escape(title)}</text>')
    y += 22
    most = max(value for _, value in bars)
    for name, value in bars:
        length = max(1, round((_WIDTH - _LEFT - 70) * value / most))
        colour = "#2b6cb0" if "replicas" in name else "#a0aec0"
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect x="{_LEFT}" y="{y + 2}" width="{length}" height="{_BAR - 4}" fill="{colour}"/>')
        parts.append(f'<text x="{_LEFT + length + 6}" y="{y + 14}">{value:.4g}</text>')
        y += _BAR
    return y + 14
