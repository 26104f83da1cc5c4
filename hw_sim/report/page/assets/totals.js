// The totals under the prices chosen: energy, its parts, where it is spent.
function showTotals(row) {
  document.getElementById("energy").textContent = `${row.lower_bound ? "> " : ""}${microjoules(page.total)} uJ`;
  document.getElementById("under").textContent = `under ${row.title}`;
  document.getElementById("left-out").textContent = row.notes.join(" ");
  const parts = partsAt(row, AXES, page.position).map((part) => partRow(part.label, part.operations, part.joules));
  document.querySelector("#parts tbody").replaceChildren(...parts);
  document.querySelector("#parts .places").replaceChildren(...placeRows());
}

function partRow(label, operations, joules) {
  const made = element("tr"), share = page.total ? joules / page.total : 0;
  made.append(cell(label), cell(operations === null ? "" : thousands(operations), true), cell(microjoules(joules), true));
  made.append(shareCell(share));
  return made;
}

// The share as text on a bar of its length.
function shareCell(share) {
  const made = cell(shareWords(share), true);
  made.classList.add("share");
  made.style.setProperty("--share", String(Math.max(0, Math.min(1, share))));
  return made;
}

function placeRows() {
  const titles = { neurocore: "on neurocores", host: "on the host processor" };
  return Object.entries(titles).flatMap(([place, title]) => {
    const there = DATA.layers.map((layer, at) => (layer.place === place ? page.layers[at] : 0));
    const any = DATA.layers.some((layer) => layer.place === place);
    return any ? [partRow(title, null, there.reduce((sum, joules) => sum + joules, 0))] : [];
  });
}

pricedListeners.push(showTotals);
