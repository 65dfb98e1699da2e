"""The frame of the report: one page that needs nothing but itself, in light and dark, on paper and on a phone."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from foveal.viz.palette import Colour

STYLE = """
:root{color-scheme:light dark;--page:#fff;--panel:#f6f7f9;--ink:#16191d;--soft:#5b6470;--line:#dde1e6;--link:#0b5cad;
--good:#0a7a4b;--bad:#b3261e;--note:#fff6e0;--note-line:#e0b84c}
@media (prefers-color-scheme:dark){:root{--page:#14171a;--panel:#1c2024;--ink:#e8eaed;--soft:#a0a8b2;--line:#333a41;
--link:#7db7f5;--good:#4cc38a;--bad:#ff8a80;--note:#2d2616;--note-line:#8a6d1f}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;-webkit-text-size-adjust:100%}
main{max-width:1240px;margin:0 auto;padding:40px 20px 64px}
header p.kind{margin:0;color:var(--soft);font-size:14px}
h1{font-size:30px;line-height:1.2;margin:4px 0 12px;letter-spacing:-.01em}
h2{font-size:20px;line-height:1.3;margin:48px 0 6px}
p{margin:0 0 10px;max-width:76ch}
.finding{font-size:19px;line-height:1.45}
.under{margin-top:12px}
.soft,small,.legend{color:var(--soft)}
small{font-size:13px}
.facts{display:flex;flex-wrap:wrap;gap:6px 28px;margin:18px 0 0;padding:12px 0;border-block:1px solid var(--line)}
.facts div{display:flex;gap:8px;align-items:baseline}
dt{color:var(--soft);font-size:14px}dd{margin:0;font-size:14px;overflow-wrap:anywhere}
.notice{background:var(--note);border-left:3px solid var(--note-line);padding:10px 14px;margin:18px 0 0;max-width:none}
.notice p{margin:0;max-width:none}.notice p+p{margin-top:4px}
.scroll{overflow-x:auto;margin-top:12px}
.scroll:focus-visible{outline:2px solid var(--link)}
table{border-collapse:collapse;width:100%;font-size:15px;font-variant-numeric:tabular-nums;white-space:nowrap}
td,th{padding:7px 12px;text-align:right;border-bottom:1px solid var(--line);font-weight:400}
th:first-child,td:first-child{padding-left:0}
td:last-child,th:last-child{padding-right:0}
thead th{vertical-align:bottom;font-size:14px;border-bottom:1px solid var(--soft)}
thead small{display:block;font-size:12px;line-height:1.3}
th.text,tbody th,.dots{text-align:left}
tr>th:first-child{position:sticky;left:0;background:var(--page)}tbody th{font-weight:600}
th.dots span{display:block;font-size:12px;color:var(--soft);line-height:1.3}
th button{all:unset;cursor:pointer;font-weight:600}
th button:hover{color:var(--link)}th button:focus-visible{outline:2px solid var(--link);outline-offset:2px}
th[aria-sort=ascending] button::after{content:" ↑"}th[aria-sort=descending] button::after{content:" ↓"}
.failed{color:var(--bad)}td.none{color:var(--soft)}
.swatch{display:inline-block;width:11px;height:11px;border-radius:50%;margin-right:7px}
svg{display:block}svg text{fill:var(--soft);font-size:12px}
.strip text{font-size:10px}
.grid{stroke:var(--line)}.axis{stroke:var(--soft)}.mean{stroke:var(--ink);stroke-width:1.5}
.base{stroke:var(--soft);stroke-dasharray:3 4;opacity:.7}.leader{stroke:var(--soft);stroke-width:.75}
.whisker{stroke-width:2;opacity:.55}.dot{stroke:var(--page);stroke-width:1.5}svg text.label{fill:var(--ink)}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr));gap:20px 28px;margin-top:16px}
figure{margin:0}.chart figcaption{font-weight:600;font-size:15px;margin-bottom:2px}.chart svg{width:100%;height:auto}
.legend{display:flex;align-items:center;gap:8px;font-size:13px}.legend img{width:128px;height:10px;border-radius:2px}
.look{display:grid;grid-template-columns:160px 1fr;gap:24px;padding:20px 0;border-top:1px solid var(--line)}
.sample p{margin:8px 0 0}.sample b{font-size:18px}
.frame{position:relative;background:var(--panel);border-radius:3px;overflow:hidden;min-width:0}
.frame img{display:block;width:100%;height:auto;image-rendering:pixelated}
.point{position:absolute;width:11px;height:11px;margin:-5.5px 0 0 -5.5px;border:2px solid #fff;border-radius:50%;
box-shadow:0 0 0 1.5px #000,inset 0 0 0 1px #000}
.card .point{width:9px;height:9px;margin:-4.5px 0 0 -4.5px;box-shadow:0 0 0 1px #000,inset 0 0 0 1px #000}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(164px,1fr));gap:16px 18px}
.card figcaption{display:flex;justify-content:space-between;gap:6px;font-size:14px;font-weight:600;margin-bottom:4px}
.card small{display:block;font-size:12px;line-height:1.35;overflow-wrap:anywhere;margin-top:3px}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:4px}
.empty{display:grid;place-items:center;aspect-ratio:1;padding:4px;text-align:center;font-size:11px;line-height:1.25;
color:var(--soft)}
.right{color:var(--good);white-space:nowrap}.wrong{color:var(--bad);white-space:nowrap}
pre{background:var(--panel);padding:10px 14px;border-radius:4px;font-size:13px;white-space:pre-wrap;
overflow-wrap:anywhere;margin:6px 0 16px}
.list{display:grid;grid-template-columns:max-content 1fr;gap:3px 18px;margin:6px 0 16px}
ul{margin:6px 0 16px;padding-left:20px;max-width:84ch}li{margin:3px 0}
@media (max-width:640px){main{padding:24px 16px 48px}td,th{padding-inline:7px}h1{font-size:24px}.finding{font-size:17px}
.look{grid-template-columns:1fr;gap:14px}
.sample{display:flex;gap:14px;align-items:end}.sample .frame{width:110px}.sample p{margin:0}
.cards{grid-template-columns:1fr 1fr;gap:14px}.list{grid-template-columns:1fr;gap:0}.list dd{margin-bottom:6px}}
@media print{.scroll{overflow:visible}.look,.chart{break-inside:avoid}}
"""

SCRIPT = """
for (const button of document.querySelectorAll('#results th button')) button.onclick = () => {
  const th = button.parentNode, up = th.getAttribute('aria-sort') !== 'ascending';
  for (const other of th.parentNode.children) other.removeAttribute('aria-sort');
  th.setAttribute('aria-sort', up ? 'ascending' : 'descending');
  const body = document.querySelector('#results tbody'), of = row => row.cells[th.cellIndex].dataset.v;
  const number = v => v === 'inf' ? Infinity : v === '-inf' ? -Infinity : Number(v);
  const order = (a, b) => th.className === 'text' ? of(a).localeCompare(of(b)) : number(of(a)) - number(of(b)) || 0;
  body.append(...[...body.rows].sort((a, b) => up ? order(a, b) : order(b, a)));
};
"""


def page(title: str, body: str, colours: Mapping[str, Colour], *, style: str = "") -> str:
    """The whole document; ``style`` comes after what all pages share."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_variables(colours)}{STYLE}{style}</style></head>\n"
        f"<body><main>{body}</main><script>{SCRIPT}</script></body></html>\n"
    )


def _variables(colours: Mapping[str, Colour]) -> str:
    light = "".join(f"--m{i}:{colour.light};" for i, colour in enumerate(colours.values()))
    dark = "".join(f"--m{i}:{colour.dark};" for i, colour in enumerate(colours.values()))
    return f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"


def references(colours: Mapping[str, Colour]) -> dict[str, str]:
    """How elements of the page name the colour of a mechanism."""
    return {name: f"var(--m{i})" for i, name in enumerate(colours)}


def definitions(entries: Mapping[str, object], kind: str) -> str:
    """Names and values as a list."""
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>"
        if kind == "facts"
        else f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
        for name, value in entries.items()
    )
    return f'<dl class="{kind}">{rows}</dl>'
