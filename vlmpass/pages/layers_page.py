"""Where two models come apart, as a page to send to someone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from vlmpass import __version__
from vlmpass.ir_tools.run import LayerComparison, OutputDifference, Verification
from vlmpass.ir_tools.run.layers import Layer
from vlmpass.ir_tools.run.value_statistics import Statistics
from vlmpass.ir_tools.system.listed import listed
from vlmpass.pages.layer_plots import error_plot, range_plot, range_text
from vlmpass.pages.plots import DARK, LIGHT, plot_style
from vlmpass.screens.layers import apart_line, leaving_line

__all__ = ["PAGE_MARK", "layers_page"]

PAGE_MARK = '<!DOCTYPE html>\n<html lang="en"><meta name="generator" content="vlmpass layers">'
"""How such a page begins."""
_MOST_ROWS = 5000

_STYLE = """
:root {{ color-scheme: light dark; {} }}
@media (prefers-color-scheme: dark) {{ :root {{ {} }} }}
body {{ font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--back);
  max-width: 1000px; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.4rem; margin-bottom: .2rem; }} h2 {{ font-size: 1.1rem; margin-top: 2rem; }}
p, caption {{ color: var(--dim); text-align: left; }} .verdict {{ font-weight: 600; }}
.ok {{ color: var(--good); }} .bad {{ color: var(--bad); }}
svg {{ width: 100%; height: auto; }}
{}
table {{ border-collapse: collapse; width: 100%; font-size: 13px; }}
table {{ font-variant-numeric: tabular-nums; }}
.wide {{ overflow-x: auto; }} th, td {{ text-align: left; padding: .2rem .6rem .2rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }}
""".format(
    *(" ".join(f"--{name}: {each};" for name, each in held.items()) for held in (LIGHT, DARK)),
    plot_style({name: f"var(--{name})" for name in LIGHT}),
)


def layers_page(
    outputs: Verification, inside: LayerComparison | None, expected: str, actual: str
) -> str:
    """Return a page that needs no other file, and says the same for the same comparison.

    Args:
        outputs: How the outputs compare.
        inside: How the values inside do; None where nothing was compared.
        expected: What to call the reference.
        actual: What to call the other.
    """
    title = f"{actual} against {expected}"
    parts = [
        PAGE_MARK,
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';'
        " style-src 'unsafe-inline'\">",
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f"<h1>{escape(title)}</h1>",
        *_head(outputs),
        *(() if inside is None else (*_first(inside), *_plots(inside), *_layers(inside.layers))),
        f"<p>vlmpass {escape(__version__)}</p></html>",
    ]
    return "\n".join(parts) + "\n"


def _head(found: Verification) -> Iterator[str]:
    kind, verdict = ("ok", "equal within the tolerance") if found.ok else ("bad", "not equal")
    yield f'<p class="verdict {kind}">{verdict}</p>'
    sizes = (" ".join(f"{n}={size}" for n, size in each.dims.items()) for each in found.trials)
    told = [text for text in sizes if text]
    seed = "" if found.seed is None else f", seed {found.seed}"
    yield f"<p>inputs: {escape('; '.join(told) or 'as given')}{seed}</p>"
    for text in (*found.findings, *found.notes, *found.causes):
        yield f"<p>{escape(text)}</p>"
    yield "<h2>Outputs</h2>"
    heads = ("output", "type", "max abs", "max rel", "mean rel", "allowed", "cosine", "dB", "")
    yield from _table(heads, map(_output_row, found.outputs))


def _output_row(found: OutputDifference) -> tuple[str, ...]:
    same = found.expected == found.actual
    return (
        found.name,
        found.expected if same else f"{found.expected} → {found.actual}",
        f"{found.max_abs:.2g}",
        f"{found.max_rel:.2g}",
        f"{found.mean_rel:.2g}",
        f"{found.tolerance:.2g}" if found.tolerance else "exact",
        f"{found.cosine:.6f}",
        "" if found.snr is None else f"{found.snr:.0f}",
        "ok" if found.ok else found.reason or "differs",
    )


def _first(inside: LayerComparison) -> Iterator[str]:
    yield "<h2>Where they come apart</h2>"
    if inside.leaving is not None:
        yield f"<p>{escape(leaving_line(inside.leaving))}</p>"
    if inside.closed:
        yield f"<p>not looked into: {escape(listed(inside.closed))}</p>"
    if inside.apart:
        yield f"<p>{escape(apart_line(inside.apart))}</p>"
    if inside.unmatched:
        yield f"<p>{inside.unmatched:,} values are in one model only.</p>"
    if inside.first is None:
        none = "none of the values inside diverges" if inside.layers else "no value is in both"
        yield f'<p class="ok">{none}</p>'
        return
    layer = inside.layers[inside.first]
    rows = [
        ("value", layer.name),
        ("made by", layer.node),
        ("module", layer.module or "unknown"),
        ("wrong", layer.difference.reason or f"relative error {layer.difference.max_rel:.1e}"),
        ("expected", _statistics(layer.expected)),
        ("actual", _statistics(layer.actual)),
    ]
    yield from _table((), rows)


def _statistics(found: Statistics) -> str:
    text = f"{range_text(found)}, mean {found.mean:.3g}, deviation {found.deviation:.3g}"
    return text + "".join(f", {number:,} {what}" for number, what in _oddities(found))


def _oddities(found: Statistics) -> Iterator[tuple[int, str]]:
    for number, what in ((found.nan, "NaN"), (found.inf, "infinite"), (found.zero, "zero")):
        if number:
            yield number, what


def _plots(inside: LayerComparison) -> Iterator[str]:
    layers = inside.layers
    if not layers:
        return
    yield "<h2>Error per value</h2>"
    yield (
        "<p>Largest relative error of every value that both models have, in the order in which the"
        " second makes them; the dashed line is what is allowed, red is what differs.</p>"
    )
    yield error_plot(inside).inline()
    yield "<h2>Range per value</h2>"
    yield "<p>Smallest to largest finite element, the reference in grey; up to a million.</p>"
    yield range_plot(inside).inline()


def _layers(layers: Sequence[Layer]) -> Iterator[str]:
    if not layers:
        return
    shown = layers[:_MOST_ROWS]
    yield "<h2>Every value</h2>"
    if len(shown) < len(layers):
        yield f"<p>The first {len(shown):,} of {len(layers):,}; --json has all.</p>"
    heads = ("", "value", "made by", "module", "max rel", "norm", "expected", "actual", "")
    yield from _table(heads, (_layer_row(at, each) for at, each in enumerate(shown)))


def _layer_row(at: int, layer: Layer) -> tuple[str, ...]:
    found = layer.difference
    return (
        str(at),
        layer.name,
        layer.node,
        layer.module,
        f"{found.max_rel:.1e}",
        f"{found.norm:.1e}",
        range_text(layer.expected),
        range_text(layer.actual),
        "ok" if found.ok else found.reason or "differs",
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield '<div class="wide"><table>'
    if heads:
        yield f"<tr>{''.join(f'<th>{escape(head)}</th>' for head in heads)}</tr>"
    for row in rows:
        kind = "" if not heads or row[-1] == "ok" else ' class="bad"'
        yield f"<tr{kind}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
    yield "</table></div>"
