"use strict";
(function () {
  const holder = document.getElementById("atoms-3d");
  const probe = document.createElement("canvas");
  if (!holder || !(probe.getContext("webgl2") || probe.getContext("webgl"))) return; // the still views remain
  const figure = JSON.parse(document.getElementById("atoms-data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  function inks() {
    const page = getComputedStyle(document.documentElement);
    const ink = page.getPropertyValue("--ink").trim();
    return { "font.color": ink, "font.family": page.getPropertyValue("--sans").trim() };
  }
  function truthInk() {
    const trace = figure.data.findIndex((t) => t.name === "truth");
    if (trace >= 0) Plotly.restyle(holder, { "marker.color": inks()["font.color"] }, [trace]);
  }

  document.documentElement.classList.add("can-turn");
  const options = { displaylogo: false, responsive: true, plotlyServerURL: "", modeBarButtonsToRemove: ["resetCameraLastSave3d"] };
  Plotly.newPlot(holder, figure.data, figure.layout, options).then(function () {
    Plotly.relayout(holder, inks());
    truthInk();
  });
  dark.addEventListener("change", function () {
    Plotly.relayout(holder, inks());
    truthInk();
  });
})();
