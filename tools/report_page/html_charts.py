"""The parts of the page that need no JavaScript, as HTML: tiles, bars, tables. Texts from elsewhere are escaped."""

import itertools
from collections.abc import Iterator, Sequence
from html import escape

from glance_replicas.model import Location, Result, Verdict

from ..output.text import age, short, size, visible
from .condition import Condition
from .report_model import Place, Row, Survey

SEEN, FOLDED = 8, 100  # problems that are seen at once, and that are a click away
SYMBOLS = {str(one): one.symbol for one in Verdict} | {"shallow": "≈", "never": "○"}  # for whom colours say little
MEANING = {
    Condition.INTACT: "intact, every byte read",
    Condition.SHALLOW: "intact as far as looked",
    Condition.DAMAGED: "damaged",
    Condition.UNKNOWN: "could not be checked",
    Condition.NEVER: "never looked at",
}
_BANDS = {"hour": "1 hour", "day": "1 day", "week": "1 week"}


def condition(verdict: Verdict) -> str:
    """The class of a verdict in the style, where every byte was read."""
    return ("damaged", "unknown", "intact")[verdict.gravity]


def tiles(total: Survey) -> Iterator[str]:
    """The sums."""
    found, copies = total.conditions(), total.durable.copies + total.cached.copies
    yield _tile("", total.images, f"images, {size(total.bytes)}")
    yield _tile("", copies, f"copies: {total.durable.copies:,} in stores, {total.cached.copies:,} on hosts")
    if total.nowhere:
        yield _tile("damaged", total.nowhere, "images without any copy")
    if total.only_cached:
        yield _tile("damaged", total.only_cached, "images without a durable copy: only cached")
    for one in (Condition.DAMAGED, Condition.UNKNOWN, Condition.NEVER, Condition.SHALLOW, Condition.INTACT):
        share = f" ({100 * found[one] / copies:.0f} %)" if copies and one is Condition.INTACT else ""
        yield _tile(str(one) if found[one] else "", found[one], MEANING[one] + share)


def _tile(kind: str, number: int, text: str) -> str:
    return f'<li class="{kind}"><b>{number:,}</b><span>{escape(text)}</span></li>'


def freshness(total: Survey) -> str:
    """A histogram of how long ago copies were last read in full; lengths in units of the view box."""
    counts = total.ages()
    longest, lines = max((number for _, number in counts), default=0) or 1, []
    for place, (name, number) in enumerate(counts):
        top, width = 26 * place, 190 * number / longest
        kind = name if name in ("older", "never") else "intact"
        lines.append(
            f'<text class="soft" x="62" y="{top + 15}" text-anchor="end">{_BANDS.get(name, name)}</text>'
            f'<rect class="{kind}" x="70" y="{top + 3}" width="{width:.1f}" height="16" rx="2"/>'
            f'<text x="{76 + width:.1f}" y="{top + 15}">{number:,}</text>'
        )
    words = ", ".join(f"{_BANDS.get(name, name)}: {number}" for name, number in counts)
    box = f'viewBox="0 0 330 {26 * len(counts)}" role="img" aria-label="{words}"'
    return f'<svg class="bars" {box}>{"".join(lines)}</svg>'


def places(total: Survey) -> str:
    """Stores and hosts, each with its copies by state, and the room on a host's disk."""
    numbers = "".join(f'<th class="number">{str(one).title()}</th>' for one in Condition)
    head = '<th>Place</th><th>Zone</th><th class="number">Copies</th><th class="number">Size</th><th>States</th>'
    head += f'{numbers}<th>Room</th><th class="number">Used</th><th class="number">Free</th>'
    lines = "".join(_place(total, place) for place in sorted(total.places))
    return f'<table class="places"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>'


def _place(total: Survey, place: Place) -> str:
    one, host, state = total.places[place], total.host(place), total.state(place)
    badge = f' <span class="badge unknown">{state}</span>' if state not in ("", "alive") else ""
    cells = f'<th scope="row">{_text(str(place))}{badge}</th><td>{_text(place.zone) or "-"}</td>'
    cells += _number(f"{one.copies:,}") + _number(size(one.bytes))
    cells += f"<td>{_stack([(str(name), one.conditions[name]) for name in Condition])}</td>"
    for name in Condition:
        cells += _number(f"{one.conditions[name]:,}", "" if one.conditions[name] else " zero")
    if host is None:
        return f"<tr>{cells}<td></td><td></td><td></td></tr>"
    room = _stack([("used", host.bytes_used)], host.bytes_used + host.bytes_free)
    return f"<tr>{cells}<td>{room}</td>{_number(size(host.bytes_used))}{_number(size(host.bytes_free))}</tr>"


def _number(text: str, more: str = "") -> str:
    return f'<td class="number{more}">{text}</td>'


def _stack(parts: Sequence[tuple[str, int]], whole: int | None = None) -> str:
    """One bar of several parts, in percent of their sum or of `whole`."""
    whole, left, lines = whole or sum(number for _, number in parts), 0.0, ""
    for name, number in parts:
        width = 100 * number / whole if whole else 0.0
        lines += f'<rect class="{name}" x="{left:.2f}" width="{width:.2f}" height="12"/>' if number else ""
        left += width
    words = ", ".join(f"{name}: {number}" for name, number in parts if number) or "nothing"
    box = f'viewBox="0 0 100 12" preserveAspectRatio="none" role="img" aria-label="{words}"'
    return f'<svg class="stack" {box}>{lines}</svg>'


def worst(total: Survey, rows: Sequence[Row]) -> str:
    """What to do something about, the worst first: a few, and more to unfold."""
    found = ((row, *problem) for row in rows if row.severity.is_trouble for problem in row.problems())
    lines = [_problem(total, *one) for one in itertools.islice(found, FOLDED)]
    if not lines:
        return '<p class="note">Nothing is known to be wrong.</p>'
    folded = ""
    if len(lines) > SEEN:
        folded = f"<details><summary>{len(lines) - SEEN} more</summary>{_table(lines[SEEN:])}</details>"
    rest = sum(1 for _ in found)
    end = f'<p class="note">and {rest:,} more, in the list below</p>' if rest else ""
    return _table(lines[:SEEN]) + folded + end


def _table(lines: Sequence[str]) -> str:
    head = "<th>Image</th><th>Where</th><th>State</th><th>Looked at</th><th>What was found, and what to do</th>"
    return (
        f'<div class="scroll"><table class="worst"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _problem(total: Survey, row: Row, one: Location | None, last: Result | None, step: str) -> str:
    called = f'<span class="name">{_text(row.image.name or "")}</span>'
    name = f'<td>{called}<br><span class="id">{_text(row.image.id)}</span></td>'
    todo = f"<code>{_text(step)}</code>"
    if one is None or last is None:
        where, what = ("only on hosts", "no durable copy") if row.image.locations else ("nowhere", "no copy")
        badge = f'<span class="badge damaged">{what}</span>'
        return f"<tr>{name}<td>{where}</td><td>{badge}</td><td>-</td><td>{todo}</td></tr>"
    text = f"{SYMBOLS[last.verdict]} {str(last.verdict).replace('_', ' ')}"
    badge = f'<span class="badge {Condition.of(last)}">{text}</span><br><span class="soft">{last.evidence}</span>'
    found = f"{_text(short(last.detail))}<br>" if last.detail else ""
    seconds = total.seconds(last)
    when = "-" if seconds is None else f"{age(seconds)} ago"
    cells = f"<td>{_text(str(total.place(one)))}</td><td>{badge}</td><td>{when}</td>"
    return f"<tr>{name}{cells}<td>{found}{todo}</td></tr>"


def _text(text: str) -> str:
    return escape(visible(text))


def legend() -> Iterator[str]:
    """What the marks in the list mean."""
    yield _mark("intact", SYMBOLS["intact"], MEANING[Condition.INTACT])
    yield _mark("shallow", SYMBOLS["shallow"], f"{MEANING[Condition.SHALLOW]}, not every byte")
    for verdict in Verdict:
        if verdict is not Verdict.INTACT:
            yield _mark(condition(verdict), SYMBOLS[verdict], str(verdict).replace("_", " "))
    yield _mark("never", SYMBOLS["never"], MEANING[Condition.NEVER])


def _mark(kind: str, symbol: str, text: str) -> str:
    return f'<li><span class="badge {kind}">{symbol}</span> {text}</li>'
