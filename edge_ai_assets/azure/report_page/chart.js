// Bars by day as SVG. What they show is given; nothing here knows what it means.
const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 200, LEFT = 48, TOP = 10, BOTTOM = 24, WIDEST = 40;
const count = new Intl.NumberFormat("en");

function drawn(name, attributes = {}, text = null) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  return element;
}

/** A round distance of grid lines, five of them at most: 1, 2 or 5 times a power of ten. */
function stepOf(most) {
  const power = 10 ** Math.max(0, Math.floor(Math.log10(Math.max(most, 1))) - 1);
  return [1, 2, 5, 10, 20].map((base) => base * power).find((step) => step * 5 >= most);
}

/**
 * Draw days `from` to the end as stacked bars.
 * @param stacks for each day a list of [class, number], from the floor up
 * @param aloud what a screen reader says of it
 * @param chosen called with a day when the pointer is over it
 * @return moves the cursor to a day
 */
function chart(holder, stacks, from, names, aloud, chosen) {
  const width = Math.max(holder.clientWidth, 280), floor = HEIGHT - BOTTOM, days = stacks.length - from;
  const totals = stacks.map((stack) => stack.reduce((sum, [, number]) => sum + number, 0));
  const most = Math.max(1, ...totals.slice(from));
  const step = stepOf(most), top = step * Math.ceil(most / step), unit = (floor - TOP) / top;
  const slot = (width - LEFT) / Math.max(days, 7), bar = Math.min(WIDEST, slot > 4 ? slot * 0.8 : slot);
  const centre = (day) => LEFT + (day - from + 0.5) * slot;
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, role: "img", "aria-label": aloud });
  for (let tick = 0; tick <= top; tick += step) {
    const y = (floor - tick * unit).toFixed(1);
    svg.append(drawn("line", { class: "grid", x1: LEFT, x2: width, y1: y, y2: y }));
    svg.append(drawn("text", { x: LEFT - 8, y: Number(y) + 4, "text-anchor": "end" }, count.format(tick)));
  }
  const paths = new Map();
  const every = Math.ceil(days / Math.max(1, Math.floor((width - LEFT) / 110)));
  for (let day = from; day < stacks.length; day += 1) {
    let y = floor;
    for (const [kind, number] of stacks[day]) {
      const tall = number * unit;
      y -= tall;
      const box = `M${(centre(day) - bar / 2).toFixed(1)} ${y.toFixed(1)}h${bar.toFixed(2)}v${tall.toFixed(1)}h-${bar.toFixed(2)}z`;
      paths.set(kind, (paths.get(kind) ?? "") + (number ? box : ""));
    }
    if ((day - from) % every === 0) {
      const anchor = centre(day) < LEFT + 40 ? "start" : centre(day) > width - 40 ? "end" : "middle";
      const x = anchor === "start" ? LEFT : anchor === "end" ? width : centre(day);
      svg.append(drawn("text", { x, y: HEIGHT - 6, "text-anchor": anchor }, names[day]));
    }
  }
  for (const [kind, path] of paths) svg.append(drawn("path", { class: kind, d: path }));
  const cursor = drawn("line", { class: "cursor", y1: TOP, y2: floor });
  svg.append(cursor);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const place = Math.floor((((event.clientX - box.left) / box.width) * width - LEFT) / slot);
    if (place >= 0 && place < days) chosen(from + place);
  });
  holder.replaceChildren(svg);
  return (day) => {
    cursor.setAttribute("x1", centre(day).toFixed(1));
    cursor.setAttribute("x2", centre(day).toFixed(1));
  };
}
