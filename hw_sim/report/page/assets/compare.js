// Two runs: A is the page's own, B the other. Both are priced by the same row, at the same positions.
const OTHER = DATA.other, other = { layers: [], total: 0 };
const PAIR_COLUMNS = [
  ["layer", (pair) => pair.name, false],
  ["spikes A", (pair) => countOf(DATA.layers, pair.a, "spikes"), true],
  ["spikes B", (pair) => countOf(OTHER.layers, pair.b, "spikes"), true],
  ["ACs A", (pair) => countOf(DATA.layers, pair.a, "acs"), true],
  ["ACs B", (pair) => countOf(OTHER.layers, pair.b, "acs"), true],
  ["MACs A", (pair) => countOf(DATA.layers, pair.a, "macs"), true],
  ["MACs B", (pair) => countOf(OTHER.layers, pair.b, "macs"), true],
  ["uJ A", (pair) => energyOf(page.layers, pair.a), true],
  ["uJ B", (pair) => energyOf(other.layers, pair.b), true],
  ["B / A", (pair) => ratioOf(pair), true],
];
const pairTable = sortableTable("pair-table", PAIR_COLUMNS, pairRow);

// -1: not there, below everything that is.
const countOf = (layers, place, key) => (place === null ? -1 : layers[place][key]);
const energyOf = (joules, place) => (place === null ? -1 : joules[place]);

function ratioOf(pair) {
  const a = energyOf(page.layers, pair.a), b = energyOf(other.layers, pair.b);
  return a > 0 && b >= 0 ? b / a : -1;
}

const times = (ratio) => (ratio < 0 ? "" : `${few(ratio)}x`);

function pairRow(pair) {
  const made = element("tr");
  made.append(element("th", pair.name, { scope: "row" }));
  PAIR_COLUMNS.slice(1, 7).forEach(([, value]) => made.append(cell(value(pair) > 0 ? thousands(value(pair)) : "", true)));
  PAIR_COLUMNS.slice(7, 9).forEach(([, value]) => made.append(cell(value(pair) < 0 ? "" : microjoules(value(pair)), true)));
  made.append(cell(times(ratioOf(pair)), true));
  return made;
}

function shownPairs() {
  const part = document.getElementById("filter").value.toLowerCase(), where = document.getElementById("filter-where").value;
  const idle = document.getElementById("filter-idle").checked;
  return DATA.pairs.filter((pair) => {
    const works = PAIR_COLUMNS.slice(1, 9).some(([, value]) => value(pair) > 0);
    const there = pair.a === null ? "b" : pair.b === null ? "a" : "both";
    return (idle || works) && (!where || there === where) && pair.name.toLowerCase().includes(part);
  });
}

function pairSums(pairs) {
  document.getElementById("shown").textContent = `${pairs.length} of ${DATA.pairs.length} layers`;
  const made = element("tr", "", { className: "total" });
  made.append(element("th", "sum of those shown", { scope: "row" }));
  const sums = PAIR_COLUMNS.slice(1, 9).map(([, value]) => pairs.reduce((all, pair) => all + Math.max(0, value(pair)), 0));
  sums.slice(0, 6).forEach((sum) => made.append(cell(thousands(sum), true)));
  sums.slice(6).forEach((sum) => made.append(cell(microjoules(sum), true)));
  made.append(cell(sums[6] > 0 ? times(sums[7] / sums[6]) : "", true));
  return made;
}

function showPairs() {
  pairTable.fill(shownPairs, pairSums);
}

const totalWords = (row, joules) => `${row.lower_bound ? "> " : ""}${microjoules(joules)} uJ`;

// A ratio of bounds would be no ratio.
const ratioWords = (a, b, first, second) => (a.lower_bound || b.lower_bound || !first ? "no answer" : times(second / first));

function showBoth(row) {
  const theirs = OTHER.rows[page.row];
  other.layers = layersAt(theirs, AXES, page.position);
  other.total = energyAt(theirs, "network", AXES, page.position);
  const ratio = ratioWords(row, theirs, page.total, other.total);
  document.getElementById("under").textContent = `under ${row.title}`;
  document.getElementById("energy-a").textContent = totalWords(row, page.total);
  document.getElementById("energy-b").textContent = totalWords(theirs, other.total);
  document.getElementById("ratio").textContent = ratio;
  document.getElementById("total").textContent = `B / A: ${ratio}`;
}

function modelPair(row, number) {
  const made = element("tr", "", { className: number === page.row ? "chosen" : "" }), named = element("th", "", { scope: "row" });
  const button = element("button", row.title, { type: "button", className: "link" }), theirs = OTHER.rows[number];
  button.addEventListener("click", () => choosePrices(number));
  named.append(button);
  const [first, second] = [row, theirs].map((each) => energyAt(each, "network", AXES, page.position));
  const factor = ratioAt(row, AXES, page.position), bound = (each, joules) => `${each.lower_bound ? "> " : ""}${microjoules(joules)}`;
  made.append(named, cell(factor === null ? "-" : digits(factor), true), cell(bound(row, first), true));
  made.append(cell(bound(theirs, second), true), cell(ratioWords(row, theirs, first, second), true), cell(row.grade));
  return made;
}

function showModels() {
  document.querySelector("#model-table tbody").replaceChildren(...ROWS.map(modelPair));
}

onFilters(["filter", "filter-where", "filter-idle"], showPairs);
pricedListeners.push(showBoth, showPairs, showModels);
