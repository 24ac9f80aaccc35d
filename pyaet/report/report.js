"use strict";
(function () {
  const holder = document.getElementById("atoms-3d");
  const canvas = document.createElement("canvas");
  const able = typeof DecompressionStream === "function" && (canvas.getContext("webgl2") || canvas.getContext("webgl"));
  if (!holder || !able) return; // the still views remain
  const figure = JSON.parse(document.getElementById("atoms-data").textContent);

  async function loadLibrary() {
    const packed = atob(document.getElementById("plotly-gzip").textContent);
    const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }

  function followPage() {
    const page = getComputedStyle(document.documentElement);
    const ink = page.getPropertyValue("--ink").trim();
    Plotly.relayout(holder, { "font.color": ink, "font.family": page.getPropertyValue("--sans").trim() });
    const truth = figure.data.findIndex((trace) => trace.name === "truth");
    if (truth >= 0) Plotly.restyle(holder, { "marker.color": ink }, [truth]);
  }

  async function draw() {
    await loadLibrary();
    document.documentElement.classList.add("can-turn");
    const options = { displaylogo: false, responsive: true, plotlyServerURL: "", modeBarButtonsToRemove: ["resetCameraLastSave3d"] };
    await Plotly.newPlot(holder, figure.data, figure.layout, options);
    followPage();
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", followPage);
  }
  draw();
})();
