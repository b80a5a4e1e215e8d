// The report: what to show, the points of a series as a table, and two points compared.
"use strict";

(() => {
  const TOLERANCE = 0.01; // a smaller difference is none, as in hwbench compare
  const HEADINGS = ["time (UTC)", "ms", "95 % from", "to", "p50", "p90", "p99", "commit", ""];
  const picked = new Map(); // of each series, the indices of the points chosen so far

  const byId = (id) => document.getElementById(id);
  const parsed = new Map(); // what the page holds of the series that were opened
  const shares = JSON.parse(byId("list")?.dataset.shares ?? "[]").map((share) => 100 * share);

  function dataOf(series) {
    if (!parsed.has(series)) parsed.set(series, JSON.parse(byId(`${series.id}-data`).textContent));
    return parsed.get(series);
  }

  const rowsOf = (series) => dataOf(series).rows;

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

  // Four digits, without an exponent.
  function figure(value) {
    if (value === null) return "–";
    return value < 9999.5 ? value.toPrecision(4) : Math.round(value).toString();
  }

  function line(series, row, index) {
    const [created, commit, status, ms, low, high, p50, p90, p99, , leftOut] = row;
    const made = element("tr");
    const head = element("th", created.slice(0, 16).replace("T", " "));
    head.scope = "row";
    if (leftOut) {
      const why = element("span", leftOut);
      why.className = "note";
      head.append(why);
    }
    made.append(head);
    if (status === "ok") made.append(...[ms, low, high].map((v) => element("td", figure(v))));
    else {
      const word = element("td", status.replace("_", " "));
      word.colSpan = 3;
      made.append(word);
    }
    made.append(...[p50, p90, p99].map((v) => element("td", figure(v))), element("td", commit || "–"));
    const choice = element("td");
    if (status === "ok") {
      const button = element("button", "compare");
      button.type = "button";
      button.setAttribute("aria-label", `Compare the point of ${moment(row)}`);
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
    showRuns(series, []);
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

  // --- the runs behind them -----------------------------------------------------------------

  // The distribution of the runs of the points chosen, or of the newest that has one.
  function showRuns(series, chosen) {
    const { rows, runs } = dataOf(series);
    const having = Object.keys(runs).map(Number);
    if (!having.length) return;
    const picks = chosen.filter((index) => having.includes(index));
    const of = (picks.length ? picks : [Math.max(...having)]).sort((a, b) => a - b);
    const colours = of.length > 1 ? ["var(--winner)", "var(--accent)"] : ["var(--accent)"];
    const traces = of.map((index, n) => ({
      type: "scatter",
      mode: "lines",
      name: unmarked(moment(rows[index])),
      x: runs[index],
      y: shares,
      line: { color: colours[n], width: 2 },
      hovertemplate: "%{y:.1f} % within %{x:.4~g} ms<extra></extra>",
      showlegend: true,
    }));
    const shapes = of.flatMap((index, n) =>
      rows[index][3] === null ? [] : [levelLine(rows[index][3], colours[n])],
    );
    // To the 99th percentile: the very last run may be many times as long.
    const last = shares.indexOf(99);
    const ends = [Math.min(...of.map((i) => runs[i][0])), Math.max(...of.map((i) => runs[i][last]))];
    const marks = of.map((i) => rows[i][3] ?? ends[0]);
    const [low, high] = [Math.min(ends[0], ...marks), Math.max(ends[1], ...marks)];
    const margin = 0.04 * (high - low) || 0.01 * high;
    const layout = {
      xaxis: { title: { text: "a run, ms; dotted: undisturbed" }, range: [low - margin, high + margin] },
      yaxis: { range: [0, 101] },
      shapes,
    };
    const box = series.querySelector(".of-runs");
    box.hidden = false;
    const detail = { traces, layout };
    box.querySelector(".chart").dispatchEvent(new CustomEvent("specified", { bubbles: true, detail }));
  }

  // Plotly reads some markup in any text.
  const unmarked = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

  const levelLine = (at, color) => ({
    type: "line", yref: "paper", y0: 0, y1: 1, x0: at, x1: at, line: { color, width: 1.5, dash: "dot" },
  });

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
    showRuns(series, chosen);
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
    if (!series || !target.matches(".over-time")) return;
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
