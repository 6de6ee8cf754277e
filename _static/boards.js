// Boards: a click on a header sorts, "Show all columns" shows the rest; tips: what a word means.
// Without this script a page shows everything that it holds.
"use strict";

// The theme calls a reader's first visit an error on the console unless a mode is named.
document.documentElement.dataset.mode ||= "auto";

// ---- sorting: a cell's data-order, else its text; empty values come last in both directions.

const valueOf = ({ cells }, column) =>
  (cells[column]?.dataset.order ?? cells[column]?.textContent ?? "").trim();

function sortRows(table, column, direction) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, value: valueOf(row, column) }));
  const [known, missing] = [true, false].map((is) => rows.filter(({ value }) => (value !== "") === is));
  const numeric = known.every(({ value }) => Number.isFinite(Number(value)));
  const compare = (a, b) =>
    numeric ? a.value - b.value : a.value.localeCompare(b.value, "en", { numeric: true });
  known.sort((a, b) => (direction === "ascending" ? compare(a, b) : compare(b, a)));
  body.append(...[...known, ...missing].map(({ row }) => row));
}

function addSorting(table) {
  const headers = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...header.childNodes);
    header.append(button);
    if (header.title) {
      button.classList.add("tip");
      button.dataset.tip = header.title;
      header.removeAttribute("title");
    }
    header.addEventListener("click", () => {
      const up = header.getAttribute("aria-sort") === "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", up ? "descending" : "ascending");
      sortRows(table, column, header.getAttribute("aria-sort"));
    });
  });
}

// ---- columns of class "more"

function addColumnsButton(table) {
  if (!table.querySelector(".more")) return;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "board-columns";
  const show = (all) => {
    table.classList.toggle("fewer", !all);
    button.textContent = all ? "Show fewer columns" : "Show all columns";
    button.setAttribute("aria-expanded", String(all));
    markWideBoxes();
  };
  button.addEventListener("click", () => show(table.classList.contains("fewer")));
  (table.closest(".rows") ?? table).before(button);
  show(false);
}

// ---- boxes that scroll can be reached, and so scrolled, with the keyboard

const BOXES = ".rows, figure, .bd-content [style*='overflow'], mjx-container, div.math";

function markWideBoxes() {
  for (const box of document.querySelectorAll(BOXES)) {
    const fits = box.scrollWidth <= box.clientWidth && box.scrollHeight <= box.clientHeight;
    if (fits || box.hasAttribute("tabindex")) continue;
    box.tabIndex = 0;
    if (!box.hasAttribute("role")) box.setAttribute("role", "group");
    if (!box.hasAttribute("aria-label")) box.setAttribute("aria-label", "scrolls sideways");
  }
}

// ---- tips: shown by standing on a word, by focusing it and by tapping it

function addTips() {
  const tip = window.erasusTip;
  let word = null;
  const hide = () => {
    word?.removeAttribute("aria-describedby");
    tip.hide(".tip");
    word = null;
  };
  const place = () => tip.show(word.dataset.tip, word);
  const show = (event) => {
    const target = event.target.closest(".tip");
    if (!target || target === word) return;
    hide();
    word = target;
    word.setAttribute("aria-describedby", tip.id);
    place();
  };
  for (const kind of ["mouseover", "focusin", "click"]) document.addEventListener(kind, show);
  document.addEventListener("mouseout", (event) => event.target === word && hide());
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  // A focused word may have come into view by scrolling; what the pointer left is over.
  const follow = () => (word && word === document.activeElement ? place() : hide());
  addEventListener("scroll", follow, { capture: true, passive: true });
}

// ---- the heat map: arrow keys go from cell to cell, Escape back to the map

const WAYS = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] };

function addWays(table) {
  const box = table.closest(".rows");
  const shown = (row) => [...row.querySelectorAll("td")].filter((cell) => cell.offsetWidth);
  box.addEventListener("keydown", (event) => {
    const rows = [...table.rows].map(shown).filter((row) => row.length);
    const cell = event.target.closest("td");
    if (event.key === "Escape" && cell) box.focus();
    const way = WAYS[event.key];
    if (!way || !(cell || event.target === box)) return;
    event.preventDefault();
    const limited = (value, list) => Math.max(0, Math.min(value, list.length - 1));
    const now = cell ? rows.findIndex((row) => row.includes(cell)) : -1;
    const row = rows[cell ? limited(now + way[0], rows) : 0];
    const next = row[cell ? limited(rows[now].indexOf(cell) + way[1], row) : 0];
    // A cell takes the focus only while it is read: Tab goes on behind the map.
    next.tabIndex = -1;
    next.focus();
  });
}

document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.board")) {
    addSorting(table);
    addColumnsButton(table);
  }
  addTips();
  document.querySelectorAll("table.heatmap").forEach(addWays);
  markWideBoxes();
  addEventListener("resize", markWideBoxes);
  document.addEventListener("toggle", markWideBoxes, true);
  window.MathJax?.startup?.promise?.then(markWideBoxes);
});
