// The report: what to show, the points of a series as a table, and two points compared.
"use strict";

(() => {
  const TOLERANCE = 0.01; // a smaller difference is none, as in hwbench compare
  const HEADINGS = ["time (UTC)", "commit", "ms", "95 % from", "to", "p50", "p90", "p99", ""];
  const picked = new Map(); // of each series, the indices of the points chosen so far

  const byId = (id) => document.getElementById(id);
  const rowsOf = (series) => JSON.parse(byId(`${series.id}-data`).textContent).rows;

  // --- what to show -------------------------------------------------------------------------

  function shown(series, model, device, tag) {
    return (
      (!model || series.querySelector(".name").textContent.toLowerCase().includes(model)) &&
      (!device || series.dataset.device === device) &&
      (!tag || JSON.parse(series.dataset.tags).includes(tag))
    );
  }

  function filter() {
    const model = byId("filter-model").value.trim().toLowerCase();
    const device = byId("filter-device").value;
    const tag = byId("filter-tag").value;
    let count = 0;
    const all = document.querySelectorAll(".series");
    for (const series of all) {
      series.hidden = !shown(series, model, device, tag);
      if (!series.hidden) count += 1;
    }
    for (const row of document.querySelectorAll("tr[data-series]")) {
      row.hidden = byId(row.dataset.series).hidden;
    }
    for (const card of document.querySelectorAll(".device")) {
      card.hidden = Boolean(device) && card.dataset.device !== device;
    }
    byId("shown").textContent = count === all.length ? "" : `${count} of ${all.length} series shown`;
  }

  // --- points -------------------------------------------------------------------------------

  function element(name, text) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  const figure = (value) => (value === null ? "–" : Number(value.toPrecision(4)).toString());

  function line(series, row, index) {
    const [created, commit, status, ms, low, high, p50, p90, p99] = row;
    const made = element("tr");
    const head = element("th", created.slice(0, 16).replace("T", " "));
    head.scope = "row";
    made.append(head, element("td", commit || "–"));
    if (status === "ok") made.append(...[ms, low, high].map((v) => element("td", figure(v))));
    else {
      const word = element("td", status.replace("_", " "));
      word.colSpan = 3;
      made.append(word);
    }
    made.append(...[p50, p90, p99].map((v) => element("td", figure(v))));
    const choice = element("td");
    if (status === "ok") {
      const button = element("button", "compare");
      button.type = "button";
      button.setAttribute("aria-label", `Compare the point of ${head.textContent}`);
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => pick(series, index));
      choice.append(button);
    }
    made.append(choice);
    return made;
  }

  function fill(series) {
    const box = series.querySelector(".points");
    if (box.firstChild) return;
    const table = element("table");
    const head = element("tr");
    for (const heading of HEADINGS) {
      const cell = element(heading ? "th" : "td", heading);
      if (heading) cell.scope = "col";
      head.append(cell);
    }
    table.createTHead().append(head);
    const rows = rowsOf(series);
    const lines = rows.map((row, index) => line(series, row, index));
    table.createTBody().append(...lines.reverse()); // the newest first
    box.append(table);
  }

  // --- two of them --------------------------------------------------------------------------

  function pick(series, index) {
    const before = picked.get(series.id) ?? [];
    const chosen = before.includes(index)
      ? before.filter((other) => other !== index)
      : [...before.slice(-1), index];
    picked.set(series.id, chosen);
    fill(series);
    const buttons = series.querySelectorAll("tbody tr");
    buttons.forEach((row, place) => {
      const own = buttons.length - 1 - place;
      row.classList.toggle("chosen", chosen.includes(own));
      row.querySelector("button")?.setAttribute("aria-pressed", String(chosen.includes(own)));
    });
    const [a, b] = [...chosen].sort((x, y) => x - y).map((place) => rowsOf(series)[place]);
    series.querySelector(".pick").textContent = b ? compared(a, b) : a ? `${moment(a)} chosen: choose another.` : "";
  }

  const moment = (row) => row[0].slice(0, 16).replace("T", " ") + (row[1] ? ` (${row[1]})` : "");
  const percent = (log) => `${log < 0 ? "−" : "+"}${Math.abs(100 * Math.expm1(log)).toFixed(1)}`;

  // Both intervals as if nothing in them were shared: wider than hwbench compare's, never narrower.
  function compared(a, b) {
    if (a[2] !== "ok" || b[2] !== "ok") return "One of the two has no latency to compare.";
    if (a[9] !== b[9]) return "Their milliseconds rest on different calibrations: no comparison.";
    const log = Math.log(b[3] / a[3]);
    const half = Math.hypot(...[a, b].map((row) => Math.log(row[5] / row[4]) / 2));
    const least = Math.log1p(TOLERANCE);
    let word = "inconclusive";
    if (log - half > least) word = "slower";
    else if (log + half < -least) word = "faster";
    else if (log - half > -least && log + half < least) word = "the same";
    const ends = `95 %: ${percent(log - half)} to ${percent(log + half)}`;
    return `${moment(b)} against ${moment(a)}: ${percent(log)} % (${ends}), ${word}.`;
  }

  // --- start --------------------------------------------------------------------------------

  const form = byId("filters");
  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  filter(); // a page that is loaded again keeps what was typed
  for (const series of document.querySelectorAll(".series")) {
    series.addEventListener("toggle", () => series.open && fill(series));
    if (series.open) fill(series);
  }
  document.addEventListener("drawn", ({ target }) => {
    const series = target.closest(".series");
    if (!series) return;
    target.on("plotly_click", ({ points }) => {
      const index = points[0].customdata;
      if (typeof index === "number") pick(series, index);
    });
  });
  function reveal() {
    const target = byId(decodeURIComponent(location.hash.slice(1)));
    if (target?.matches(".series")) target.open = true;
  }
  addEventListener("hashchange", reveal);
  reveal();
})();
