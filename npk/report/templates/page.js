"use strict";
(() => {
  const plots = JSON.parse(document.getElementById("plots").textContent);
  const touch = matchMedia("(pointer: coarse)").matches;
  const config = { responsive: true, displayModeBar: false };

  // Colors are names of CSS variables, so that the plots follow light, dark and print.
  const resolve = (value) => {
    if (typeof value === "string" && value.startsWith("var(")) return getComputedStyle(document.documentElement).getPropertyValue(value.slice(4, -1)).trim();
    if (Array.isArray(value)) return typeof value[0] === "number" || Array.isArray(value[0]) ? value : value.map(resolve);
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, resolve(inner)]));
    return value;
  };

  const draw = (id) => {
    const variants = plots[id];
    const chosen = document.querySelector(`select[data-plot="${id}"]`);
    const { data, layout } = variants[chosen ? chosen.selectedIndex : 0];
    const made = resolve(layout);
    if (touch) { made.dragmode = false; made.xaxis.fixedrange = made.yaxis.fixedrange = true; }  // a finger scrolls the page
    Plotly.react(id, resolve(data), made, config);
  };

  const drawAll = () => Object.keys(plots).forEach(draw);
  document.querySelectorAll("select[data-plot]").forEach((select) => select.addEventListener("change", () => draw(select.dataset.plot)));
  ["(prefers-color-scheme: dark)", "print"].forEach((query) => matchMedia(query).addEventListener("change", drawAll));
  document.querySelectorAll(".interactive").forEach((part) => { part.hidden = false; });
  document.querySelectorAll(".fallback").forEach((part) => { part.classList.add("replaced"); });
  drawAll();
})();
