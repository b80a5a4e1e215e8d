// Draws the charts: each one when it is scrolled to, in the colours of the reader's theme.
// Text and tables need none of this; plotly itself is fetched with the first chart.
"use strict";

(() => {
  const AHEAD = "400px"; // how far before a chart comes into view it is drawn
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

  function layout(own, style) {
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
        xaxis: axis(own.xaxis),
        yaxis: axis(own.yaxis),
      },
      style,
    );
  }

  async function draw(element) {
    const library = await plotly();
    const { traces, layout: own } = specs.get(element);
    const style = getComputedStyle(document.body);
    await library.react(element, themed(traces, style), layout(own, style), {
      displayModeBar: false,
      responsive: true,
    });
    if (element.dataset.state !== "drawn") {
      element.dataset.state = "drawn";
      element.dispatchEvent(new CustomEvent("drawn", { bubbles: true }));
    }
  }

  function fail(element, error) {
    element.dataset.state = "failed";
    element.textContent = `This chart could not be drawn: ${error.message}.`;
  }

  const observer = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        observer.unobserve(target);
        const data = document.getElementById(target.dataset.chart);
        specs.set(target, JSON.parse(data.textContent));
        draw(target).catch((error) => fail(target, error));
      }
    },
    { rootMargin: AHEAD },
  );

  for (const chart of document.querySelectorAll(".chart")) observer.observe(chart);
  dark.addEventListener("change", () => {
    for (const chart of specs.keys()) draw(chart).catch((error) => fail(chart, error));
  });
})();
