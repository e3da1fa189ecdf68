// What the controls do: they choose days and sites, and charts and table follow.
const $$ = (id) => document.getElementById(id);
const COLOURED = 6;
const range = $$("range"), slider = $$("day");
let shown = sites.map((_, place) => place), sums = summed(shown), cursors = [];

/** The newest releases have a colour of their own, older ones share one. */
const known = [...new Set(sites.flatMap(({ runs }) => runs.filter((_, place) => place % 2)))].sort((a, b) => b - a);
const kindOf = (release) => {
  const place = known.indexOf(release);
  return release > 0 && place < COLOURED ? `r${place}` : "rest";
};
const nameOf = (release) => (release > 0 ? `release ${release}` : "unknown");

/** Names of the colours that are drawn, the newest release first. */
function legend(stacks) {
  const kinds = new Set(stacks.flatMap((stack) => stack.map(([kind]) => kind)));
  const entries = known.slice(0, COLOURED).map((release) => [kindOf(release), nameOf(release)]);
  const drawnHere = [...entries, ["rest", "older or unknown"]].filter(([kind]) => kinds.delete(kind));
  $$("legend").replaceChildren(...drawnHere.map(([kind, name]) => {
    const item = document.createElement("li"), mark = drawn("svg", { viewBox: "0 0 1 1", "aria-hidden": "true" });
    mark.append(drawn("rect", { class: kind, width: 1, height: 1 }));
    item.append(mark, name);
    return item;
  }));
}

/** What is known of a day, in a sentence. */
function sentence(day) {
  const running = [...sums.running[day]].sort(([a], [b]) => b - a)
    .map(([release, number]) => `${nameOf(release)} at ${count.format(number)}`);
  return `${dayNames[day]}: ${count.format(sums.anomalies[day])} anomalies, insights of ` +
    `${count.format(sums.reporting[day])} of ${count.format(shown.length)} sites` +
    (running.length ? `; ${running.slice(0, 4).join(", ")}` : "");
}

function choose(day) {
  slider.value = day;
  const said = sentence(day);
  slider.setAttribute("aria-valuetext", said);
  $$("said").textContent = said;
  cursors.forEach((move) => move(day));
}

function draw() {
  const from = dayCount - Number(range.value);
  slider.min = from;
  slider.max = dayCount - 1;
  const part = sums.anomalies.slice(from);
  const total = part.reduce((sum, number) => sum + number, 0), most = part.indexOf(Math.max(...part)) + from;
  const spoken = `${count.format(total)} anomalies from ${dayNames[from]} to ${dayNames[dayCount - 1]}, most on ` +
    `${dayNames[most]}: ${count.format(sums.anomalies[most])}.`;
  const bars = sums.anomalies.map((number) => [["bar", number]]);
  const stacks = sums.running.map((running) => {
    const kinds = new Map();
    for (const [release, number] of [...running].sort(([a], [b]) => a - b)) {
      kinds.set(kindOf(release), (kinds.get(kindOf(release)) ?? 0) + number);
    }
    return [...kinds];
  });
  legend(stacks.slice(from));
  cursors = [
    chart($$("anomalies"), bars, from, dayNames, spoken, choose),
    chart($$("running"), stacks, from, dayNames, `Sites by release. ${sentence(dayCount - 1)}`, choose),
  ];
  choose(Math.min(Math.max(Number(slider.value), from), dayCount - 1));
  if ($$("numbers").open) tabulate();
}

/** The days as a table, the newest first; only while somebody looks at it. */
function tabulate() {
  const from = dayCount - Number(range.value);
  const made = document.createElement("tbody");
  for (let day = dayCount - 1; day >= from; day -= 1) {
    const row = made.insertRow(), head = document.createElement("th");
    head.scope = "row";
    head.textContent = dayNames[day];
    row.append(head);
    const running = [...sums.running[day]].sort(([a], [b]) => b - a)
      .map(([release, number]) => `${nameOf(release)}: ${count.format(number)}`).join(", ");
    for (const [text, kind] of [[sums.anomalies[day], "n"], [sums.reporting[day], "n"], [running, ""]]) {
      const cell = row.insertCell();
      cell.textContent = typeof text === "number" ? count.format(text) : text;
      cell.className = kind;
    }
  }
  const header = document.createElement("thead"), row = header.insertRow();
  for (const [name, kind] of [["day", ""], ["anomalies", "n"], ["sites with insights", "n"], ["sites by release", ""]]) {
    const head = document.createElement("th");
    head.scope = "col";
    head.className = kind;
    head.textContent = name;
    row.append(head);
  }
  $$("by-day").replaceChildren(header, made);
}

function refilter() {
  shown = filtered($$("filter").value, $$("state").value);
  sums = summed(shown);
  $$("shown").textContent = `${count.format(shown.length)} of ${count.format(sites.length)} sites`;
  draw();
}

for (const days of [...new Set([30, 90, dayCount].filter((days) => days <= dayCount))].sort((a, b) => a - b)) {
  range.add(new Option(days === dayCount ? `all ${days}` : `last ${days}`, days));
}
range.value = dayCount > 90 ? 90 : dayCount;
slider.max = dayCount - 1;
slider.value = dayCount - 1;
$$("unscripted").remove();
for (const hidden of document.querySelectorAll(".scripted")) hidden.hidden = false;
makeSortable();
range.addEventListener("change", draw);
slider.addEventListener("input", () => choose(Number(slider.value)));
$$("filter").addEventListener("input", refilter);
$$("state").addEventListener("change", refilter);
$$("numbers").addEventListener("toggle", () => { if ($$("numbers").open) tabulate(); });
refilter();
let wide = $$("anomalies").clientWidth;
new ResizeObserver(() => {
  if ($$("anomalies").clientWidth !== wide) {
    wide = $$("anomalies").clientWidth;
    draw();
  }
}).observe($$("anomalies"));
