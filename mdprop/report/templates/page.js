"use strict";
// A click on a head sorts the rows by that column: numbers from the highest, names from the first, then the reverse.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  const heads = [...table.tHead.querySelectorAll("[data-column]")];
  const keyOf = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    const number = Number.parseFloat(cell.firstChild ? cell.firstChild.textContent.replace("−", "-") : "");
    return column && !Number.isNaN(number) ? number : cell.textContent.trim();
  };
  const missing = key => key === "" || key === "–";
  for (const head of heads) {
    const column = Number(head.dataset.column);
    const button = document.createElement("button");
    button.type = "button";
    const name = document.createElement("span"); // with the sign of the order
    name.append(head.firstChild);
    button.append(name, ...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const rows = [...body.rows].map((row, place) => ({ row, place, key: keyOf(row, column) }));
      const numbers = rows.some(({ key }) => typeof key === "number");
      const before = head.getAttribute("aria-sort");
      const up = before === "none" ? !numbers : before === "descending";
      heads.forEach(other => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      rows.sort((a, b) => {
        if (missing(a.key) || missing(b.key)) return missing(a.key) - missing(b.key) || a.place - b.place;
        const order = typeof a.key === "number" && typeof b.key === "number"
          ? a.key - b.key : String(a.key).localeCompare(String(b.key), "en");
        return (up ? order : -order) || a.place - b.place;
      });
      body.append(...rows.map(({ row }) => row));
    });
  }
}
