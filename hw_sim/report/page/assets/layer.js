// One layer, or the layers of a block, in a drawer: opened by a click in the graph, in a chart or in the table.
function openDrawer(title, ...content) {
  const drawer = document.getElementById("layer");
  const close = element("button", "close", { type: "button" });
  close.addEventListener("click", closeDrawer);
  drawer.replaceChildren(close, element("h2", title), ...content);
  drawer.hidden = false;
  close.focus({ preventScroll: true });
}

function closeDrawer() {
  document.getElementById("layer").hidden = true;
}

function layerButton(place) {
  const made = element("button", DATA.layers[place].name, { type: "button", className: "link" });
  made.addEventListener("click", () => showLayer(place));
  return made;
}

function showMembers(name, places) {
  if (places.length === 1) return showLayer(places[0]);
  const table = element("table"), ordered = [...places].sort((a, b) => page.layers[b] - page.layers[a]);
  for (const place of ordered) {
    const made = element("tr"), named = element("td");
    named.append(layerButton(place));
    made.append(named, cell(`${microjoules(page.layers[place])} uJ`, true), shareCell(page.layers[place] / page.total || 0));
    table.append(made);
  }
  return openDrawer(`${name}: ${places.length} layers`, table);
}

function showLayer(place) {
  const layer = DATA.layers[place], table = element("table");
  for (const [label, text] of layerFacts(layer, place)) {
    const made = element("tr");
    made.append(element("th", label), cell(text));
    table.append(made);
  }
  const content = [table, ...neighbours(place)];
  if (DATA.spikes && DATA.spikes.layers[layer.name]) content.push(mapButton(layer.name));
  openDrawer(layer.name, ...content);
}

function layerFacts(layer, place) {
  const shape = (sides) => sides.join(" x "), energy = page.layers[place];
  const some = (label, number) => (number ? [[label, thousands(number)]] : []);
  return [
    ["energy", `${microjoules(energy)} uJ, ${percent(energy / page.total || 0)}, under ${ROWS[page.row].title}`],
    ["kind", layer.kind + (layer.place ? `, on ${layer.place === "host" ? "the host processor" : "neurocores"}` : "")],
    ["reads", `${layer.reads} values, ${shape(layer.takes)} a step`],
    ["gives", `${shape(layer.gives)} a step`],
    ...(layer.kernel ? [["kernel", `${shape(layer.kernel)}, stride ${shape(layer.stride)}, ${layer.groups} group(s)`]] : []),
    ...some("parameters", layer.weights),
    ...some("spikes", layer.spikes),
    ...(layer.chances ? [["firing rate", percent(layer.spikes / layer.chances)]] : []),
    ...some("ACs", layer.acs),
    ...some("MACs", layer.macs),
    ...(layer.macs && layer.nonzero_macs !== undefined ? [["of them not by 0", thousands(layer.nonzero_macs)]] : []),
    ...some("element-wise", layer.elementwise),
    ...stepFacts(place),
  ];
}

function stepFacts(place) {
  const at = DATA.rates ? DATA.rates.layers.indexOf(place) : -1;
  if (at < 0 || DATA.rates.rates[at].length > 16) return [];
  return [["step by step", DATA.rates.rates[at].map(percent).join(", ")]];
}

function neighbours(place) {
  const readers = DATA.layers.flatMap((layer, other) => (layer.inputs.includes(place) ? [other] : []));
  return [["reads from", DATA.layers[place].inputs], ["is read by", readers]].flatMap(([label, places]) => {
    if (!places.length) return [];
    const line = element("p", `${label} `);
    places.forEach((other) => line.append(layerButton(other), " "));
    return [line];
  });
}

function mapButton(name) {
  const made = element("button", "show where it fires", { type: "button" });
  made.addEventListener("click", () => {
    chooseMap(name);
    document.getElementById("spikes").scrollIntoView();
  });
  return made;
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") closeDrawer();
});
