// The table of layers: filtered by name, kind and what is read, priced as the page is. Items are places of layers.
const COLUMNS = [
  ["layer", (place) => DATA.layers[place].name, false],
  ["kind", (place) => DATA.layers[place].kind, false],
  ["reads", (place) => DATA.layers[place].reads, false],
  ["runs on", (place) => DATA.layers[place].place, false],
  ["spikes", (place) => DATA.layers[place].spikes, true],
  ["ACs", (place) => DATA.layers[place].acs, true],
  ["MACs", (place) => DATA.layers[place].macs, true],
  ["element-wise", (place) => DATA.layers[place].elementwise, true],
  ["uJ", (place) => page.layers[place], true],
  ["share", (place) => page.layers[place], true],
];
const FIRST_COUNT = 4, ENERGY = 8;
const layerTable = sortableTable("layer-table", COLUMNS, layerRow);

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

function layerRow(place) {
  const made = element("tr"), named = element("th", "", { scope: "row" });
  named.append(layerButton(place));
  made.append(named);
  COLUMNS.slice(1, ENERGY).forEach(([, value, isNumber]) => {
    const found = value(place);
    made.append(cell(isNumber ? (found ? thousands(found) : "") : found, isNumber));
  });
  made.append(cell(microjoules(page.layers[place]), true), shareCell(page.layers[place] / page.total || 0));
  return made;
}

function sumRow(places) {
  document.getElementById("shown").textContent = `${places.length} of ${DATA.layers.length} layers`;
  const made = element("tr", "", { className: "total" });
  made.append(element("th", "sum of those shown", { scope: "row" }), cell(""), cell(""), cell(""));
  const sum = (value) => places.reduce((all, place) => all + value(place), 0);
  COLUMNS.slice(FIRST_COUNT, ENERGY).forEach(([, value]) => made.append(cell(thousands(sum(value)), true)));
  const energy = sum(COLUMNS[ENERGY][1]);
  made.append(cell(microjoules(energy), true), shareCell(energy / page.total || 0));
  return made;
}

function showLayers() {
  layerTable.fill(shownLayers, sumRow);
}

fillChoices("filter-kind", DATA.layers.map((layer) => layer.kind));
fillChoices("filter-reads", DATA.layers.map((layer) => layer.reads));
onFilters(["filter", "filter-kind", "filter-reads", "filter-idle"], showLayers);
pricedListeners.push(showLayers);
