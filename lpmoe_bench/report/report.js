"use strict";
(() => {
  const all = (what, where = document) => [...where.querySelectorAll(what)];
  const find = document.getElementById("find");
  const task = document.getElementById("task");
  const test = document.getElementById("test");
  const columns = document.getElementById("columns");
  const count = document.getElementById("count");

  // A cell's number, where it has one; else its words. Cells without a value come last, always.
  function keyOf(row, place, numeric) {
    const cell = row.cells[place];
    if (!numeric) return cell.textContent.trim();
    return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
  }

  function compare(a, b, sign) {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
  }

  function sort(head) {
    const table = head.closest("table"), body = table.tBodies[0], place = head.cellIndex;
    const before = head.getAttribute("aria-sort");
    const first = head.dataset.first === "down" ? "descending" : "ascending";
    const next = before === "none" ? first : before === "ascending" ? "descending" : "ascending";
    const sign = next === "ascending" ? 1 : -1;
    const rows = [...body.rows].filter((row) => !row.classList.contains("nothing"));
    const numeric = head.classList.contains("number");
    const keyed = rows.map((row) => [keyOf(row, place, numeric), row]);
    keyed.sort((a, b) => compare(a[0], b[0], sign)); // equal rows keep their order
    for (const other of all("thead th", table)) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", next);
    for (const [, row] of keyed) body.append(row);
    const nothing = body.querySelector(".nothing");
    if (nothing) body.append(nothing);
  }

  function placed(element) {
    const tests = (element.dataset.tests || "").split("\n");
    return (!task.value || element.dataset.task === task.value)
      && (!test.value || tests.includes(test.value));
  }

  function filter() {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const named = (element) => {
      const name = element.dataset.name.toLowerCase();
      return words.every((word) => name.includes(word));
    };
    for (const part of all(".filtered")) part.classList.toggle("off", !placed(part));
    for (const row of all("tbody tr[data-name], figure[data-name], .cell[data-name]")) {
      const there = row.dataset.task === undefined || placed(row);
      row.classList.toggle("off", !(there && named(row)));
    }
    for (const mark of all(".mark[data-name]")) {
      mark.classList.toggle("dim", mark.dataset.name !== "" && !named(mark));
    }
    for (const body of all("table tbody")) sayNothing(body);
    const rows = all("#records tbody tr[data-name]");
    const shown = rows.filter((row) => !row.classList.contains("off")).length;
    count.textContent = shown === rows.length
      ? `${shown} records` : `${shown} of ${rows.length} records`;
  }

  function sayNothing(body) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("nothing"));
    const empty = rows.length > 0 && rows.every((row) => row.classList.contains("off"));
    let line = body.querySelector(".nothing");
    if (empty && !line) {
      line = body.insertRow();
      line.className = "nothing";
      const cell = line.insertCell();
      cell.colSpan = 99;
      cell.textContent = "no row has this name";
    } else if (!empty && line) {
      line.remove();
    }
  }

  for (const button of all(".sortable thead button")) {
    button.addEventListener("click", () => sort(button.parentElement));
  }
  const form = document.getElementById("filter");
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  find.addEventListener("input", filter);
  for (const select of [task, test]) select.addEventListener("change", filter);
  columns.addEventListener("change", () => document.body.classList.toggle("wide", columns.checked));
  find.value = task.value = test.value = "";
  columns.checked = false;
})();
