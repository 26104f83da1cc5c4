// What the page is asked: prices, positions of sliders, scale. `priced` tells all sections when an answer changes.
const DATA = JSON.parse(document.getElementById("data").textContent);
const page = { row: DATA.prices.start, position: {}, log: true, layers: [], total: 0 };
const pricedListeners = [];
const { axes: AXES, rows: ROWS } = DATA.prices;

function readAxes() {
  for (const axis of AXES) {
    const slider = document.getElementById(`axis-${axis.name}`);
    page.position[axis.name] = Number(slider.value);
    document.getElementById(`at-${axis.name}`).textContent = axis.labels[page.position[axis.name]];
  }
}

function priced() {
  readAxes();
  const row = ROWS[page.row];
  page.layers = layersAt(row, AXES, page.position);
  page.total = energyAt(row, "network", AXES, page.position);
  document.getElementById("prices").value = String(page.row);
  document.getElementById("total").textContent = `${row.lower_bound ? "> " : ""}${microjoules(page.total)} uJ`;
  pricedListeners.forEach((listener) => listener(row));
}

function choosePrices(number) {
  page.row = number;
  priced();
}

function begin() {
  const select = document.getElementById("prices"), scale = document.getElementById("scale");
  ROWS.forEach((row, number) => select.append(element("option", row.title, { value: String(number) })));
  select.addEventListener("change", () => choosePrices(Number(select.value)));
  scale.addEventListener("click", () => {
    page.log = !page.log;
    scale.setAttribute("aria-pressed", String(page.log));
    scale.textContent = page.log ? "log scale" : "linear scale";
    priced();
  });
  const form = document.getElementById("axes");
  form.addEventListener("input", priced);
  form.addEventListener("reset", () => setTimeout(priced));
  themeListeners.push(priced);
}

begin();
