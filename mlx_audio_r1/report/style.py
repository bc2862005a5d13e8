"""How the page looks: light or dark as the reader's system is, black on white on paper."""

STYLE = """
:root {
  --paper: #ffffff; --raised: #f5f6f8; --ink: #1d2129; --quiet: #5d6673; --line: #d9dde3; --grid: #e6e9ed;
  --one: #1f5fbf; --two: #b8500f; --three: #2c7a4b; --four: #7650b0; --five: #0f7480;
  --six: #a83a72; --seven: #7d6400; --eight: #6b7280; --warn: #b3261e; --font: system-ui, sans-serif;
  color-scheme: light;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #14171c; --raised: #1d2128; --ink: #e6e9ee; --quiet: #9aa4b2; --line: #363c47; --grid: #2a2f38;
    --one: #7db0ff; --two: #f2a365; --three: #7fd3a0; --four: #c3a6ff; --five: #6fd0d8;
    --six: #f49ac1; --seven: #e0c25a; --eight: #9aa4b2; --warn: #ff8a80; color-scheme: dark;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1.25rem 3rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 var(--font); }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; }
h2 { font-size: 1.1rem; margin: 2.25rem 0 .75rem; }
h3 { font-size: .95rem; margin: 0 0 .5rem; }
.wide + h3, .note + h3 { margin-top: 1.5rem; }
h1, h3, td, th, dd, pre, p { overflow-wrap: anywhere; }
header p, footer, figcaption, dt, .note { color: var(--quiet); }
header p { margin: .25rem 0 0; }
footer { margin-top: 2.5rem; font-size: .85rem; }
.warning { border-left: 3px solid var(--warn); padding: .25rem .75rem; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0;
  border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
.facts { width: 100%; }
.facts th { width: 14rem; font-weight: normal; color: var(--quiet); }
.grid thead th { font-weight: normal; color: var(--quiet); }
.grid td, .grid th + th { text-align: right; padding-left: .75rem; }
.wide { overflow-x: auto; }
@media screen { .grid td, .grid thead th { white-space: nowrap; } }
.plots + .wide, .across + .wide, .wide + .wide, .wide + .across { margin-top: 1.25rem; }
.grid th[scope=row] { font-weight: normal; overflow-wrap: break-word; min-width: 6.5rem; }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: .75rem; margin: 1rem 0; }
@media (max-width: 44rem) { .tiles { grid-template-columns: 1fr 1fr; } }
.tiles div { background: var(--raised); border-radius: 6px; padding: .6rem .8rem; }
dt { font-size: .8rem; }
dd { margin: 0; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.plots { display: grid; gap: 1.25rem 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); }
.plots figure { margin: 0; }
figcaption { font-size: .9rem; margin-bottom: .25rem; }
svg { display: block; width: 100%; height: auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
.across { overflow-x: auto; }
.across svg { min-width: 36rem; }
.reason { margin: 1.25rem 0 .5rem; }
.examples { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr)); }
.examples .sample { margin: 0; min-width: 0; }
.sample { border: 1px solid var(--line); border-radius: 6px; padding: .9rem 1rem; margin: 0 0 1rem; }
.sample audio { display: block; width: 100%; max-width: 26rem; height: 2.25rem; margin: .4rem 0; }
.sample p { margin: .25rem 0; }
.label { color: var(--quiet); font-size: .85rem; }
.replies { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1rem;
  margin-top: .75rem; }
.reply { background: var(--raised); border-radius: 6px; padding: .7rem .85rem; min-width: 0; }
pre { white-space: pre-wrap; margin: 0; font: inherit; }
.thinking { color: var(--quiet); font-size: .88rem; max-height: 11rem; overflow: auto; margin-bottom: .5rem;
  border-left: 2px solid var(--line); padding-left: .6rem; }
.match { color: var(--three); }
code { font: .88em ui-monospace, monospace; }
@media print {
  body { max-width: none; padding: 0; font-size: 9pt; }
  h2, h3, .sample > p { break-after: avoid; }
  figure, tr, .tiles div { break-inside: avoid; }
  audio { display: none !important; }
  .grid { font-size: 8pt; }
  .grid td, .grid th + th { overflow-wrap: break-word; padding-left: .4rem; padding-right: .4rem; }
  .plots { grid-template-columns: 1fr 1fr; }
  .replies { grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); }
  .examples { grid-template-columns: 1fr 1fr; }
  .examples .sample { break-inside: avoid; }
  .across svg { min-width: 0; }
  .tiles { grid-template-columns: repeat(4, 1fr); }
  .tiles div, .reply { background: none; border: 1px solid var(--line); }
  .thinking { max-height: none; overflow: visible; }
}
"""
