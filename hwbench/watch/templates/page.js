// Draws the charts: each one when it is scrolled to, in the colours of the reader's theme.
// Text and tables need none of this; plotly itself is fetched with the first chart.
"use strict";

(() => {
  const AHEAD = "400px"; // how far before a chart comes into view it is drawn
  const NARROW = 480; // pixels of a chart with room for few labels below its horizontal axis
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const finePointer = matchMedia("(hover: hover) and (pointer: fine)");
  const specs = new Map(); // of the charts that came into view, by their elements

  let loading = null;

  function plotly() {
    loading ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = "plotly.min.js";
      script.onload = () => resolve(window.Plotly);
      script.onerror = () => reject(new Error("plotly.min.js is missing beside this page"));
      document.head.append(script);
    });
    return loading;
  }

  // A specification names colours, as in var(--…): put in what the style sheet says now.
  function themed(value, style) {
    if (typeof value === "string") {
      const found = /^var\((--[\w-]+)\)$/.exec(value);
      return found ? style.getPropertyValue(found[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((item) => themed(item, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, themed(v, style)]));
  }

  function axis(own) {
    return {
      gridcolor: "var(--line)",
      linecolor: "var(--line)",
      zerolinecolor: "var(--line)",
      automargin: true,
      fixedrange: !finePointer.matches, // a finger scrolls the page, not the chart
      ...own,
      title: { standoff: 10, font: { size: 13 }, ...own.title },
    };
  }

  // Labels that would overlap are turned, into what lies below: fewer of them are not.
  function few(own = {}) {
    const every = own.ticktext?.length > 5 ? 2 : 1;
    const ticktext = own.ticktext?.map((text, n) => (n % every ? "" : text));
    return { tickangle: 0, ...own, ticktext, ...(own.type === "date" && { nticks: 4 }) };
  }

  function layout(own, style, width) {
    const text = { family: style.fontFamily, size: 13, color: "var(--muted)" };
    return themed(
      {
        ...own,
        font: text,
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        margin: { l: 8, r: 12, t: 12, b: 8 },
        hovermode: "closest",
        hoverlabel: {
          bgcolor: "var(--surface)",
          bordercolor: "var(--muted)",
          align: "left",
          font: { ...text, color: "var(--ink)" },
        },
        legend: { orientation: "h", x: 0, y: -0.2, yanchor: "top", itemsizing: "constant" },
        xaxis: axis(width < NARROW ? few(own.xaxis) : own.xaxis),
        yaxis: axis(own.yaxis),
      },
      style,
    );
  }

  function paint(library, element) {
    const { traces, layout: own } = specs.get(element);
    const style = getComputedStyle(document.body);
    const drawn = library.react(element, themed(traces, style), layout(own, style, element.clientWidth), {
      displayModeBar: false,
      responsive: true,
    });
    if (element.dataset.state !== "drawn") {
      element.dataset.state = "drawn";
      element.dispatchEvent(new CustomEvent("drawn", { bubbles: true }));
    }
    return drawn;
  }

  async function draw(element) {
    try {
      await paint(await plotly(), element);
    } catch (error) {
      element.dataset.state = "failed";
      element.textContent = `This chart could not be drawn: ${error.message}.`;
    }
  }

  // A chart's specification lies in the page, or comes with an event of the page's other script.
  function known(element) {
    if (!specs.has(element) && element.dataset.chart) {
      specs.set(element, JSON.parse(document.getElementById(element.dataset.chart).textContent));
    }
    return specs.has(element);
  }

  const observer = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting || !known(target)) continue;
        observer.unobserve(target);
        draw(target);
      }
    },
    { rootMargin: AHEAD },
  );

  const charts = document.querySelectorAll(".chart");
  for (const chart of charts) observer.observe(chart);
  document.addEventListener("specified", ({ target, detail }) => {
    specs.set(target, detail);
    if (target.dataset.state === "drawn") draw(target);
  });
  const redraw = () => charts.forEach((chart) => chart.dataset.state === "drawn" && draw(chart));
  dark.addEventListener("change", redraw);

  // --- on paper: all charts, in the colours of a light page; without plotly their tables instead

  const root = document.documentElement;
  const opened = [];

  // Drawn for the screen, it takes the width of the paper.
  function scalable(svg) {
    svg.setAttribute("viewBox", `0 0 ${svg.getAttribute("width")} ${svg.getAttribute("height")}`);
  }

  addEventListener("beforeprint", () => {
    root.dataset.paper = "";
    for (const chart of charts) {
      if (!chart.checkVisibility() || !known(chart)) continue;
      if (window.Plotly) {
        observer.unobserve(chart);
        paint(window.Plotly, chart);
        for (const svg of chart.querySelectorAll(".main-svg")) scalable(svg);
      } else {
        const table = chart.closest("figure")?.querySelector("details:not([open])");
        if (table) opened.push(table);
      }
    }
    for (const table of opened) table.open = true;
  });
  addEventListener("afterprint", () => {
    delete root.dataset.paper;
    for (const table of opened.splice(0)) table.open = false;
    for (const svg of document.querySelectorAll(".main-svg")) svg.removeAttribute("viewBox");
    redraw();
  });
})();
