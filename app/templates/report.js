"use strict";
// Draws every figure of the page in the page's own colours, and again when the reader turns to light or dark.
const scheme = window.matchMedia("(prefers-color-scheme: dark)");

function themed(layout) {
  const page = getComputedStyle(document.documentElement);
  const colour = (name) => page.getPropertyValue(name).trim();
  const axis = (own) => ({
    gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line"),
    tickfont: { color: colour("--soft") }, fixedrange: true, automargin: true, ...own,
    title: { standoff: 12, ...(own || {}).title, font: { color: colour("--soft"), size: 13 } },
  });
  return {
    margin: { l: 56, r: 16, t: 16, b: 48 },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    ...layout,
    xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
    annotations: (layout.annotations || []).map((note) => ({ arrowcolor: colour("--ink"), ...note })),
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: page.getPropertyValue("--plain").trim(), size: 13, color: colour("--ink") },
    hoverlabel: { bgcolor: colour("--raised"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
  };
}

function draw() {
  for (const holder of document.querySelectorAll("[data-figure]")) {
    const figure = JSON.parse(document.getElementById(holder.dataset.figure).textContent);
    Plotly.react(holder, figure.data, themed(figure.layout), { displayModeBar: false, responsive: true });
  }
}

scheme.addEventListener("change", draw);
draw();
