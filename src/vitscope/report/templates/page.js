"use strict";
(() => {
  const root = document.documentElement;
  const settings = { displayModeBar: false, responsive: false, showTips: false };

  // Colours: figures name CSS variables; "--ramp-37" lies between the stops --ramp-25 and --ramp-50.
  const bytes = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  const between = (a, b, share) =>
    `rgb(${bytes(a).map((from, i) => Math.round(from + (bytes(b)[i] - from) * share)).join(",")})`;
  const faint = (solid) => {
    const parts = solid.startsWith("#") ? bytes(solid) : solid.match(/\d+/g).slice(0, 3);
    return `rgba(${parts.join(",")},0.18)`;
  };
  function colour(style, name) {
    if (name.endsWith("-faint")) return faint(colour(style, name.slice(0, -6)));
    const given = style.getPropertyValue(name).trim();
    const stop = /^(--\w+)-(\d+)$/.exec(name);
    if (given || !stop) return given;
    const low = Math.floor(stop[2] / 25) * 25;
    const at = (place) => style.getPropertyValue(`${stop[1]}-${place}`).trim();
    return between(at(low), at(low + 25), (stop[2] - low) / 25);
  }
  const resolved = (text) => {
    const style = getComputedStyle(root);
    return JSON.parse(text, (_, value) =>
      typeof value === "string" && value.startsWith("var(") ? colour(style, value.slice(4, -1)) : value);
  };

  const source = (canvas) => canvas.nextElementSibling.textContent;
  const seen = (canvas) => !canvas.closest("details:not([open])"); // what is folded is drawn when it is opened
  function draw(canvas) {
    const { data, layout } = resolved(source(canvas));
    if (layout.showlegend && canvas.clientWidth > 520) layout.margin.t = layout.meta.wide_margin; // one row of legend
    const first = !canvas.classList.contains("js-plotly-plot");
    Plotly.react(canvas, data, { ...layout, width: canvas.clientWidth, height: canvas.clientHeight }, settings);
    if (first) canvas.on("plotly_hover", (event) => {
      const layer = event.points[0].customdata;
      if (Number.isInteger(layer)) mark(canvas.closest(".run"), layer);
    });
  }
  const canvases = (within) => [...within.querySelectorAll(".canvas")].filter(seen);
  const drawAll = () => canvases(document).forEach(draw);

  // One unit, marked everywhere.
  function mark(run, layer) {
    const cells = Number(run.dataset.cells);
    const readout = run.querySelector(".readout");
    if (!readout) return;
    const marked = layer >= 0 && layer < cells;
    run.classList.toggle("marked", marked);
    run.style.setProperty("--at", layer);
    const places = run.querySelector(".places").content.children;
    readout.textContent = marked ? places[layer].textContent : readout.dataset.idle;
  }
  function layerAt(element, x) {
    const box = element.getBoundingClientRect();
    const style = getComputedStyle(root);
    const [left, right] = ["--left", "--right"].map((name) => parseFloat(style.getPropertyValue(name)));
    const cells = Number(element.closest(".run").dataset.cells);
    return Math.floor(((x - box.left - left) / (box.width - left - right)) * cells);
  }
  document.querySelectorAll(".depth, .picture").forEach((element) => {
    const run = element.closest(".run");
    const follow = (event) => mark(run, layerAt(element, event.clientX));
    element.addEventListener("pointermove", follow);
    element.addEventListener("pointerdown", follow);
    element.addEventListener("pointerleave", () => mark(run, -1));
  });

  document.querySelectorAll("details").forEach((details) =>
    details.addEventListener("toggle", () => details.open && canvases(details).forEach(draw)));
  function unfold() {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let up = target; up; up = up.parentElement) if (up.tagName === "DETAILS") up.open = true;
    target.scrollIntoView();
  }
  addEventListener("hashchange", unfold);

  // Tables.
  function said(button, text) {
    const before = button.textContent;
    button.textContent = text;
    setTimeout(() => { button.textContent = before; }, 1500);
  }
  const csv = (button) => button.closest("details").querySelector(".csv").textContent.replace(/^\n/, "");
  async function copy(text) {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) throw new Error("copy refused");
  }
  function save(content, type, file) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type }));
    link.download = file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.classList.contains("copy"))
      copy(csv(button)).then(() => said(button, "Copied"), () => said(button, "Could not copy"));
    if (button.classList.contains("download")) save(csv(button), "text/csv", button.dataset.file);
    if (button.classList.contains("save"))
      button.closest("figure").querySelectorAll(".canvas").forEach((canvas) =>
        Plotly.downloadImage(canvas, {
          format: "svg", filename: canvas.dataset.file, width: canvas.clientWidth, height: canvas.clientHeight }));
  });

  // Light or dark, wide or narrow, on paper.
  let waiting = 0;
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(drawAll, 120);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  const folded = [];
  addEventListener("beforeprint", () => {
    root.classList.add("printing");
    document.querySelectorAll("details.printed:not([open])").forEach((details) => {
      folded.push(details);
      details.open = true;
    });
    drawAll();
  });
  addEventListener("afterprint", () => {
    root.classList.remove("printing");
    folded.splice(0).forEach((details) => { details.open = false; });
    drawAll();
  });

  drawAll();
  unfold();
})();
