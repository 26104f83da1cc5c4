// Every model at the positions of the sliders: energies and verdicts; a row chosen prices the page.
function modelRow(row, number) {
  const made = element("tr"), named = element("th", "", { scope: "row" });
  const button = element("button", row.title, { type: "button", className: "link" });
  button.addEventListener("click", () => choosePrices(number));
  named.append(button);
  const ratio = ratioAt(row, AXES, page.position), network = microjoules(energyAt(row, "network", AXES, page.position));
  made.append(named, cell(ratio === null ? "-" : digits(ratio), true), cell(row.lower_bound ? `> ${network}` : network, true));
  for (const side of ["own", "reference"].filter((name) => row.sides[name])) {
    const verdict = verdictAt(row, side, AXES, page.position);
    const energy = row.sides[side].unpriced ? "no price" : microjoules(energyAt(row, side, AXES, page.position));
    made.append(cell(energy, true), element("td", verdictWords(verdict), { className: verdict.word }));
  }
  made.append(cell(row.grade), cell(row.reproduces));
  made.className = number === page.row ? "chosen" : "";
  return made;
}

function showModels() {
  document.querySelector("#model-table tbody").replaceChildren(...ROWS.map(modelRow));
}

pricedListeners.push(showModels);
