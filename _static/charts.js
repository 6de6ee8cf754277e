/* Rows of a chart: the pointer, a tap or the arrow keys show what a row says.

   Without this script a chart still says its rows in browser tooltips and to screen readers. */
(() => {
  "use strict";
  const show = (text, near) => window.erasusTip.show(text, near);
  const hide = () => window.erasusTip.hide(".erasus-chart");
  const move = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };

  const drawnRows = (chart) =>
    [...chart.querySelectorAll("svg")]
      .filter((svg) => svg.clientWidth > 0)
      .flatMap((svg) => [...svg.querySelectorAll(".row")]);

  /** A focused row may have come into view by scrolling; what the pointer left is over. */
  function follow() {
    const row = document.activeElement?.closest(".erasus-chart .row");
    if (row) show(row.getAttribute("aria-label"), marks(row));
    else hide();
  }

  const marks = (row) => row.querySelector(":scope > g") || row;

  function prepare(chart) {
    const said = [...chart.querySelectorAll("svg.wide .row, svg.only .row")].map((row) =>
      row.querySelector("title").textContent
    );
    if (!said.length) return;
    for (const svg of chart.querySelectorAll("svg")) {
      svg.querySelectorAll(".row").forEach((row, number) => {
        // A label instead of a title, or the browser would show its own tooltip as well.
        row.querySelector("title")?.remove();
        row.setAttribute("role", "img");
        row.setAttribute("aria-label", said[number]);
        row.addEventListener("pointerenter", () => show(said[number], marks(row)));
        row.addEventListener("click", () => show(said[number], marks(row)));
        row.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide());
      });
    }
    chart.addEventListener("keydown", (event) => step(chart, event));
    // Listened to at the chart: a row with a listener of its own could be tabbed to in Chromium.
    chart.addEventListener("focusin", ({ target }) => {
      if (target !== chart) follow();
      else if (chart.matches(":focus-visible")) show("Arrow keys read the chart row by row.", chart);
    });
    chart.addEventListener("focusout", hide);
  }

  function step(chart, event) {
    if (event.key === "Escape") {
      hide();
      return;
    }
    const rows = drawnRows(chart);
    const now = rows.indexOf(document.activeElement);
    const ends = { Home: 0, End: rows.length - 1 };
    const way = move[event.key];
    if (!(event.key in ends) && !way) return;
    event.preventDefault();
    const next = event.key in ends ? ends[event.key] : now < 0 ? 0 : now + way;
    const row = rows[Math.max(0, Math.min(rows.length - 1, next))];
    // A row takes the focus only while it is read: Tab goes from chart to chart.
    row.setAttribute("tabindex", "-1");
    row.focus();
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("figure.erasus-chart").forEach(prepare);
    window.addEventListener("scroll", follow, { passive: true });
  });
})();
