// The table of layers: sorted by any column, filtered by name, kind and what is read, priced as the page is.
const COLUMNS = [
  ["layer", (layer) => layer.name, false],
  ["kind", (layer) => layer.kind, false],
  ["reads", (layer) => layer.reads, false],
  ["runs on", (layer) => layer.place, false],
  ["spikes", (layer) => layer.spikes, true],
  ["ACs", (layer) => layer.acs, true],
  ["MACs", (layer) => layer.macs, true],
  ["element-wise", (layer) => layer.elementwise, true],
  ["uJ", (layer, place) => page.layers[place], true],
  ["share", (layer, place) => page.layers[place], true],
];
const ENERGY = 8, SHARE = 9;
const tableState = { column: null, descending: true };

function shownLayers() {
  const part = document.getElementById("filter").value.toLowerCase();
  const kind = document.getElementById("filter-kind").value, reads = document.getElementById("filter-reads").value;
  const idle = document.getElementById("filter-idle").checked;
  return [...DATA.layers.keys()].filter((place) => {
    const layer = DATA.layers[place];
    const works = layer.spikes || layer.acs || layer.macs || layer.elementwise || page.layers[place];
    return (idle || works) && layer.name.toLowerCase().includes(part) &&
      (!kind || layer.kind === kind) && (!reads || layer.reads === reads);
  });
}

function sorted(places) {
  if (tableState.column === null) return places;
  const [, value] = COLUMNS[tableState.column], sign = tableState.descending ? -1 : 1;
  const key = (place) => value(DATA.layers[place], place);
  const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  return [...places].sort((a, b) => sign * order(key(a), key(b)) || a - b);
}

function showLayers() {
  const places = sorted(shownLayers()), body = document.querySelector("#layer-table tbody");
  body.replaceChildren(...places.map(layerRow));
  document.querySelector("#layer-table tfoot").replaceChildren(sumRow(places));
  document.getElementById("shown").textContent = `${places.length} of ${DATA.layers.length} layers`;
}

function layerRow(place) {
  const layer = DATA.layers[place], made = element("tr"), named = element("th", "", { scope: "row" });
  named.append(layerButton(place));
  made.append(named);
  COLUMNS.slice(1, ENERGY).forEach(([, value, isNumber]) => {
    const found = value(layer, place);
    made.append(cell(isNumber ? (found ? thousands(found) : "") : found, isNumber));
  });
  made.append(cell(microjoules(page.layers[place]), true), shareCell(page.layers[place] / page.total || 0));
  return made;
}

function sumRow(places) {
  const made = element("tr", "", { className: "total" });
  made.append(element("th", "sum of those shown", { scope: "row" }), cell(""), cell(""), cell(""));
  const sum = (value) => places.reduce((all, place) => all + value(DATA.layers[place], place), 0);
  COLUMNS.slice(4, ENERGY).forEach(([, value]) => made.append(cell(thousands(sum(value)), true)));
  const energy = sum(COLUMNS[ENERGY][1]);
  made.append(cell(microjoules(energy), true), shareCell(energy / page.total || 0));
  return made;
}

// Once: largest or first first; again: the other way; a third time: as the network runs.
function sortBy(column) {
  const first = COLUMNS[column][2];
  if (tableState.column !== column) Object.assign(tableState, { column, descending: first });
  else if (tableState.descending === first) tableState.descending = !first;
  else tableState.column = null;
  document.querySelectorAll("#layer-table thead th").forEach((head, at) => {
    const order = at === tableState.column ? (tableState.descending ? "descending" : "ascending") : "none";
    head.setAttribute("aria-sort", order);
  });
  showLayers();
}

function beginTable() {
  const heads = COLUMNS.map(([title, , isNumber], column) => {
    const head = element("th", "", { scope: "col", className: isNumber ? "n" : "" });
    const button = element("button", title, { type: "button" });
    button.addEventListener("click", () => sortBy(column));
    head.append(button);
    head.setAttribute("aria-sort", "none");
    return head;
  });
  document.querySelector("#layer-table thead tr").replaceChildren(...heads);
  for (const [id, key] of [["filter-kind", "kind"], ["filter-reads", "reads"]]) {
    const found = [...new Set(DATA.layers.map((layer) => layer[key]))].sort();
    document.getElementById(id).append(...found.map((value) => element("option", value, { value })));
  }
  ["filter", "filter-kind", "filter-reads", "filter-idle"].forEach((id) =>
    document.getElementById(id).addEventListener("input", showLayers));
  pricedListeners.push(showLayers);
}

beginTable();
