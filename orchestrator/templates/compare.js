// Draws the charts in the page's own colours, again when these change, and gives each chart a toggle for its legend.
"use strict";
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function layoutOf(figure) {
  const grid = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line") };
  const layout = structuredClone(figure.layout);
  Object.assign(layout.xaxis, grid);
  Object.assign(layout.yaxis, grid);
  layout.font = { color: colour("--ink"), size: 13, family: "system-ui, sans-serif" };
  layout.hoverlabel = { bgcolor: colour("--card"), font: { color: colour("--ink") } };
  return layout;
}

function linesOf(figure) {
  const data = structuredClone(figure.data);
  for (const line of data) {
    const light = colour("--chart-" + line.line.color.slice(1).toLowerCase());
    if (dark.matches && light) line.line.color = light;
  }
  return data;
}

function draw() {
  for (const place of document.querySelectorAll("[data-figure]")) {
    const figure = JSON.parse(document.getElementById(place.dataset.figure).textContent);
    Plotly.react(place, linesOf(figure), layoutOf(figure), { responsive: true, displaylogo: false, displayModeBar: false });
  }
}

draw();
dark.addEventListener("change", draw);
window.addEventListener("beforeprint", draw);
