"use strict";
// Sorts the table and draws the figures. Names that come from data are inserted as text, never as markup.

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const position = new Map([...body.rows].map((row, place) => [row, place]));
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const isNumber = head.classList.contains("number");
      const compare = (left, right) => {
        const [a, b] = [left, right].map((row) => row.cells[column].dataset.value);
        if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
        const order = isNumber ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true });
        return up ? order : -order;
      };
      const rows = [...body.rows].sort((a, b) => compare(a, b) || position.get(a) - position.get(b));
      body.append(...rows);
    });
  });
}

const DASHES = ["solid", "6px,3px", "2px,3px", "7px,3px,2px,3px", "12px,3px"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "x"];
const OUTLINES = [
  "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0", "M-4 -4h8v8h-8z", "M0 -5L5 0L0 5L-5 0z", "M0 -5L5 4H-5z", "M0 5L5 -4H-5z",
  "M-4 -2L-2 -4L0 -2L2 -4L4 -2L2 0L4 2L2 4L0 2L-2 4L-4 2L-2 0z",
];
const figures = JSON.parse(document.getElementById("figures").textContent);
const plots = [...document.querySelectorAll(".plot")];
const hidden = new Set();

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const clear = (hex, part) => hex + Math.round(part * 255).toString(16).padStart(2, "0");
const escaped = (text) => text.replace(/[&<>]/g, (each) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[each]);

function seriesOf(plot) {
  return figures[plot.dataset.figure].series.filter((series) => series.panel === plot.dataset.panel);
}

function traces(figure, series) {
  const { name, style, x, y, low, high } = series;
  const tint = colour(`c${style.colour}`);
  const shared = { x, name: escaped(name), meta: name, visible: !hidden.has(name), type: "scatter" };
  const line = series.faint
    ? { color: clear(tint, 0.7), width: 1, dash: "1px,2px" }
    : { color: tint, width: 1.8, dash: DASHES[style.dash] };
  const main = {
    ...shared,
    y,
    line,
    mode: [series.line && "lines", series.marks && "markers"].filter(Boolean).join("+"),
    marker: {
      color: tint,
      symbol: SYMBOLS[style.colour],
      size: 8,
      line: { color: colour("paper"), width: 0.8 },
      maxdisplayed: series.line ? 12 : 0,
    },
    text: x.map((_, place) => describe(figure, series, place)),
    hovertemplate: `%{fullData.name}<br>${escaped(figure.x_title)} %{x}<br>%{text}<extra></extra>`,
  };
  if (!low || !high) return [main];
  if (series.spread === "bars") {
    const error = { array: high.map((each, k) => each - y[k]), arrayminus: low.map((each, k) => y[k] - each) };
    return [{ ...main, error_y: { ...error, symmetric: false, color: tint, thickness: 1.2, width: 4 } }];
  }
  const edge = { ...shared, mode: "lines", line: { width: 0 }, hoverinfo: "skip" };
  return [{ ...edge, y: low }, { ...edge, y: high, fill: "tonexty", fillcolor: clear(tint, 0.18) }, main];
}

function describe(figure, series, place) {
  const { y, low, high } = series;
  const number = (value) => (figure.losses ? value.toFixed(4) : Number(value.toPrecision(3)).toString());
  const range = low && high ? ` (${number(low[place])} to ${number(high[place])})` : "";
  if (!figure.losses) return `${number(y[place])}${range}${series.faint ? " before training" : ""}`;
  return `${number(y[place])} nats${range}<br>${(y[place] / Math.LN2).toFixed(4)} bits`;
}

// An axis's range, the same in all panels of a figure; `margin` is the fraction of it that is added at both ends.
function span(values, log, margin) {
  const ends = [(a, b) => Math.min(a, b), (a, b) => Math.max(a, b)].map((end) => values.reduce(end));
  const [least, most] = log ? ends.map(Math.log10) : ends;
  const space = margin * (most - least || 1);
  return [least - space, most + space];
}

function layout(figure) {
  const [ink, muted, rule] = ["ink", "muted", "rule"].map(colour);
  const axis = { gridcolor: rule, linecolor: muted, zeroline: false, automargin: true, ticks: "outside", tickcolor: muted };
  const all = (...names) => figure.series.flatMap((series) => names.flatMap((name) => series[name] ?? []));
  const ends = span(all("x"), figure.x_log, 0.03);
  const touch = matchMedia("(pointer: coarse)").matches; // where dragging scrolls the page
  return {
    font: { family: "system-ui, sans-serif", size: 12, color: ink },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 8, r: 8, t: 8, b: 8 },
    showlegend: false,
    hovermode: "closest",
    hoverlabel: { bgcolor: colour("soft"), bordercolor: muted, font: { color: ink }, namelength: -1, align: "left" },
    xaxis: {
      ...axis,
      title: { text: figure.x_title },
      type: figure.x_log ? "log" : "linear",
      exponentformat: figure.x_log ? "power" : "none",
      dtick: figure.x_log && ends[1] - ends[0] < 3 ? "D2" : figure.x_log || figure.x_whole ? 1 : undefined,
      hoverformat: figure.x_log ? ".3e" : ",",
      range: ends,
      fixedrange: touch,
    },
    yaxis: {
      ...axis,
      title: { text: figure.y_title },
      type: figure.y_log ? "log" : "linear",
      exponentformat: "power",
      dtick: figure.y_log ? 1 : undefined,
      range: span(figure.y_range ?? all("y", "low", "high"), figure.y_log, figure.y_range ? 0 : 0.05),
      fixedrange: touch,
    },
    shapes: Object.values(figure.levels).map((y) => ({
      type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { color: muted, width: 1, dash: "dot" },
    })),
    annotations: Object.entries(figure.levels).map(([name, y]) => ({
      text: escaped(name), xref: "paper", x: 1, xanchor: "right", y: figure.y_log ? Math.log10(y) : y, yanchor: "top",
      showarrow: false, font: { color: muted },
    })),
  };
}

function swatch(series) {
  const make = (tag, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, value));
    return node;
  };
  const { colour: number, dash } = series.style;
  const tint = `var(--c${number})`;
  const svg = make("svg", { width: 38, height: 14, viewBox: "-19 -7 38 14", "aria-hidden": "true" });
  const dashes = dash ? DASHES[dash].replaceAll("px", "") : "none";
  svg.append(make("path", { d: "M-19 0H19", stroke: tint, "stroke-width": 1.8, "stroke-dasharray": dashes }));
  if (series.marks) {
    svg.append(make("path", { d: OUTLINES[number], fill: tint }));
  }
  return svg;
}

function legend(plot) {
  const shown = seriesOf(plot);
  const marked = new Set(shown.filter((each) => each.marks).map((each) => each.name));
  for (const [name, series] of new Map(shown.map((each) => [each.name, each]))) {
    const button = document.createElement("button");
    const label = document.createElement("span");
    button.type = "button";
    button.dataset.name = label.textContent = name;
    button.setAttribute("aria-pressed", "true");
    button.append(swatch({ ...series, marks: marked.has(name) }), label);
    button.addEventListener("click", () => toggle(name));
    plot.nextElementSibling.append(button);
  }
}

function toggle(name) {
  if (!hidden.delete(name)) hidden.add(name);
  document.querySelectorAll(".legend button").forEach((button) => {
    button.setAttribute("aria-pressed", String(!hidden.has(button.dataset.name)));
  });
  plots.forEach((plot) => {
    const places = plot.data.flatMap((trace, place) => (trace.meta === name ? [place] : []));
    if (places.length) Plotly.restyle(plot, { visible: !hidden.has(name) }, places);
  });
}

function draw() {
  const config = { responsive: true, displayModeBar: false };
  plots.forEach((plot) => {
    const figure = figures[plot.dataset.figure];
    Plotly.newPlot(plot, seriesOf(plot).flatMap((each) => traces(figure, each)), layout(figure), config);
  });
}

if (figures.length) {
  plots.forEach(legend);
  draw();
  // Colours are read when a figure is drawn, and printed pages have a width of their own.
  for (const change of ["(prefers-color-scheme: dark)", "print"]) matchMedia(change).addEventListener("change", draw);
}
