"use strict";
// Sorting: a value that was not measured stays at the bottom, whichever way the column is sorted.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") === "descending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = table.tBodies[0];
    const key = (row) => column ? row.cells[column].dataset.value : row.cells[0].textContent.trim();
    const rows = [...body.rows].sort((a, b) => {
      const x = key(a), y = key(b);
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = column ? Number(x) - Number(y) : y.localeCompare(x);
      return up ? order : -order;
    });
    body.append(...rows);
  }));
}
// A wide table says that it goes on to the right.
const watch = new ResizeObserver((found) => {
  for (const { target } of found) {
    const over = target.scrollWidth > target.clientWidth + 1;
    if (over && !target.nextElementSibling?.classList.contains("more")) {
      const hint = document.createElement("p");
      hint.className = "more";
      hint.textContent = "More columns to the right: scroll \u2192";
      target.after(hint);
    }
    target.classList.toggle("overflows", over);
  }
});
document.querySelectorAll(".scroll").forEach((table) => watch.observe(table));
