// The facts in the page, and sums of them over the sites that are looked at.
const facts = JSON.parse(document.getElementById("data").textContent);
const DAY = 86_400_000;
const worth = new Map([...facts.digits].map((digit, place) => [digit, place]));

/** Numbers of the text that `page_data.packed` made. */
function unpacked(text) {
  const numbers = [];
  let number = 0, unit = 1;
  for (const digit of text) {
    const value = worth.get(digit);
    number += (value & 31) * unit;
    if (value < 32) {
      numbers.push(number);
      number = 0;
      unit = 1;
    } else {
      unit *= 32;
    }
  }
  return numbers;
}

const sites = facts.sites.map(([name, days, runs]) => ({ name, days: unpacked(days), runs }));
const dayCount = facts.insights.length;
const dayNames = facts.insights.map((_, place) =>
  new Date(Date.parse(facts.first) + place * DAY).toISOString().slice(0, 10));

/** Of some sites by day: anomalies, sites that something came of, and how many run each release. */
function summed(places) {
  const anomalies = new Array(dayCount).fill(0), reporting = new Array(dayCount).fill(0);
  const running = Array.from({ length: dayCount }, () => new Map());
  for (const place of places) {
    const { days, runs } = sites[place];
    for (let day = 0; day < dayCount; day += 1) {
      if (days[day] > 0) {
        reporting[day] += 1;
        anomalies[day] += days[day] - 1;
      }
    }
    for (let step = 0; step < runs.length; step += 2) {
      const end = step + 2 < runs.length ? runs[step + 2] : dayCount;
      for (let day = runs[step]; day < end; day += 1) {
        running[day].set(runs[step + 1], (running[day].get(runs[step + 1]) ?? 0) + 1);
      }
    }
  }
  return { anomalies, reporting, running };
}
