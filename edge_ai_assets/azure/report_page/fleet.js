// The table of the fleet: sorted by its heads, filtered by a field. The rows are in the page already.
const table = document.getElementById("sites");
const body = table.tBodies[0];
const rows = [...body.rows].filter((row) => row.dataset.i !== undefined);
const heads = [...table.tHead.rows[0].cells];
const texts = rows.map((row) => row.textContent.toLowerCase());
const ATTENTION = new Set(["stale", "gap", "refused"]);
const alphabet = new Intl.Collator("en", { numeric: true });

/** What a cell is sorted by: its number if it has one, else its text. */
function valueOf(row, column) {
  const cell = row.cells[column];
  return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
}

function sortBy(column, direction) {
  heads.forEach((head, place) => {
    if (place === column) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
    else head.removeAttribute("aria-sort");
  });
  const keyed = [...body.rows].map((row) => [valueOf(row, column), row]);
  keyed.sort(([a], [b]) => direction * (typeof a === "number" ? a - b : alphabet.compare(a, b)));
  body.append(...keyed.map(([, row]) => row));
}

/** Make the heads buttons: names up first, numbers down first. */
function makeSortable() {
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const first = rows.length && typeof valueOf(rows[0], column) === "number" ? -1 : 1;
      sortBy(column, now === null ? first : now === "ascending" ? -1 : 1);
    });
  });
}

/** Show rows that have all the words and the state; their sites' places. */
function filtered(words, state) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const kept = [];
  rows.forEach((row, place) => {
    const told = row.dataset.s;
    const fits = state === "" || (state === "attention" ? ATTENTION.has(told) : told === state);
    row.hidden = !(fits && wanted.every((word) => texts[place].includes(word)));
    if (!row.hidden) kept.push(Number(row.dataset.i));
  });
  return kept;
}
