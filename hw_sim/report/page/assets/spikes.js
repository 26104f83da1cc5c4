// Where spikes fire: a map of one layer and step over the image, and rates where rain is and elsewhere.
const SPIKES = DATA.spikes, MAPPED = Object.keys(SPIKES.layers);
const FIRING = DATA.layers.filter((layer) => layer.chances && SPIKES.layers[layer.name]).map((layer) => layer.name);
const COMPARED = FIRING.length ? FIRING : MAPPED; // a gate is open far more often than a neuron fires
const mapState = { layer: MAPPED[0], step: "mean", shown: 0 };

async function greyOf(uri, [width, height]) {
  const image = new Image();
  image.src = uri;
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, width, height).data.filter((_, place) => place % 4 === 0);
}

// Firing rates of all cells, in [0, 1], of a step or of the mean over steps.
async function ratesOf(layer, step) {
  const { steps, cells, full } = SPIKES.layers[layer];
  const asked = step === "mean" ? steps : [steps[step]];
  const greys = await Promise.all(asked.map((uri) => greyOf(uri, cells)));
  return Array.from(greys[0], (_, place) => greys.reduce((sum, grey) => sum + grey[place], 0) / (full * greys.length));
}

const PALETTE = Array.from({ length: 256 }, (_, level) => {
  const at = (level / 255) * (VIRIDIS.length - 1), below = Math.min(Math.floor(at), VIRIDIS.length - 2), part = at - below;
  const channels = (hex) => [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
  const [low, high] = [channels(VIRIDIS[below]), channels(VIRIDIS[below + 1])];
  return low.map((value, channel) => Math.round(value + part * (high[channel] - value)));
});

async function showMap() {
  const ticket = ++mapState.shown, { layer, step } = mapState;
  const rates = await ratesOf(layer, step);
  if (ticket !== mapState.shown) return; // another was asked for meanwhile
  mapState.rates = rates;
  mapState.most = [...rates].sort((a, b) => a - b)[Math.floor(0.995 * (rates.length - 1))] || rates.reduce((a, b) => Math.max(a, b), 0) || 1;
  paintMap();
  document.getElementById("map-most").textContent = `${percent(mapState.most)}${mapState.most < 1 ? " and more" : ""}`;
  document.getElementById("map-words").textContent = mapWords(layer, step, rates);
}

// The less a cell fires, the more of the photo is seen through it.
function paintMap() {
  const [width, height] = SPIKES.layers[mapState.layer].cells, photo = document.getElementById("map-photo").value / 100;
  const canvas = Object.assign(document.querySelector("#map canvas"), { width, height });
  const context = canvas.getContext("2d"), pixels = context.createImageData(width, height);
  mapState.rates.forEach((rate, place) => {
    const part = Math.min(rate / mapState.most, 1);
    pixels.data.set([...PALETTE[Math.round(part * 255)], 255 * (1 - photo * (1 - 0.7 * part))], 4 * place);
  });
  context.putImageData(pixels, 0, 0);
  canvas.style.width = `${100 / SPIKES.covers[1]}%`;
  canvas.style.height = `${100 / SPIKES.covers[0]}%`;
}

function mapWords(layer, step, rates) {
  const { in_rain: rain, elsewhere, cells } = SPIKES.layers[layer];
  const of = (list) => (step === "mean" ? list.reduce((a, b) => a + b, 0) / list.length : list[step]);
  const where = [rain ? `${percent(of(rain))} where rain is` : "", elsewhere ? `${percent(of(elsewhere))} elsewhere` : ""];
  const silent = rates.filter((rate) => rate === 0).length / rates.length;
  const times = rain && elsewhere && of(elsewhere) > 0 ? `, ${digits(of(rain) / of(elsewhere))} times as often in rain` : "";
  return `${layer}: ${where.filter(Boolean).join(", ")}${times}; ${percent(silent)} of ${cells[0]} x ${cells[1]} cells silent.`;
}

function drawLegend() {
  const canvas = document.getElementById("map-legend"), context = canvas.getContext("2d");
  PALETTE.forEach((rgb, level) => {
    context.fillStyle = `rgb(${rgb})`;
    context.fillRect(level, 0, 1, canvas.height);
  });
}

function fillSteps() {
  const select = document.getElementById("map-step"), count = SPIKES.layers[mapState.layer].steps.length;
  const options = ["mean", ...Array.from({ length: count }, (_, step) => String(step))];
  if (!options.includes(mapState.step)) mapState.step = "mean";
  select.replaceChildren(
    ...options.map((step) => element("option", step === "mean" ? "all" : String(Number(step) + 1), { value: step })),
  );
  select.value = mapState.step;
}

function chooseMap(layer) {
  mapState.layer = layer;
  document.getElementById("map-layer").value = layer;
  fillSteps();
  showMap();
}

function drawRain() {
  const mean = (list) => (list ? list.reduce((a, b) => a + b, 0) / list.length : null);
  const both = [["where rain is", "in_rain", COLOURS.rain], ["elsewhere", "elsewhere", COLOURS.dry]];
  const chart = draw("rain-chart", {
    grid: { left: 8, right: 24, top: 32, bottom: 8, containLabel: true },
    legend: legendOf(both.map(([name]) => name)),
    tooltip: tooltipOf((item) => [item.name, `${item.seriesName}: ${percent(item.value)}`]),
    xAxis: axisOf("value", { axisLabel: { color: colour("text"), formatter: percent } }),
    yAxis: namesAxis(COMPARED),
    series: both.map(([name, key, shade]) => ({
      name, type: "bar", itemStyle: { color: shade }, data: COMPARED.map((layer) => mean(SPIKES.layers[layer][key])),
    })),
  }, 70 + 22 * COMPARED.length);
  chart.off("click");
  chart.on("click", (item) => chooseMap(item.name));
}

function beginSpikes() {
  const select = document.getElementById("map-layer");
  document.querySelector("#map .photo").src = document.querySelector("#before-after .before").src;
  MAPPED.forEach((layer) => select.append(element("option", layer, { value: layer })));
  select.addEventListener("change", () => chooseMap(select.value));
  document.getElementById("map-step").addEventListener("change", (event) => {
    mapState.step = event.target.value;
    showMap();
  });
  document.getElementById("map-photo").addEventListener("input", paintMap);
  document.getElementById("map-rain").addEventListener("change", (event) => {
    document.querySelector("#map .rain").hidden = !event.target.checked;
  });
  drawLegend();
  chooseMap(MAPPED[0]);
  themeListeners.push(drawRain);
  drawRain();
}

beginSpikes();
