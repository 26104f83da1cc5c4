// One way to draw a chart: ECharts in the colours of the page, as wide as its element, told anew when it must change.
const drawn = new Map();
// Okabe and Ito, "Color Universal Design" (2008): told apart with every kind of colour vision, on light and on dark.
const COLOURS = { analog: "#d55e00", spike: "#0072b2", neuron: "#e69f00", other: "#999999", rain: "#0072b2", dry: "#e69f00" };
// viridis, of nine points: even steps of lightness
const VIRIDIS = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"];

function draw(id, option, height) {
  const place = document.getElementById(id);
  if (height) place.style.height = `${height}px`;
  if (!drawn.has(id)) {
    drawn.set(id, echarts.init(place, null, { renderer: "canvas" }));
    new ResizeObserver(() => drawn.get(id).resize()).observe(place);
  }
  const chart = drawn.get(id);
  chart.resize();
  chart.setOption({ ...commonOption(), ...option }, { notMerge: true });
  return chart;
}

function commonOption() {
  return {
    animation: false,
    textStyle: { color: colour("text"), fontFamily: "system-ui, sans-serif" },
    aria: { enabled: true },
  };
}

const isNarrow = () => window.innerWidth < 600;

function axisOf(kind, more = {}) {
  const line = { lineStyle: { color: colour("line") } };
  return { type: kind, axisLine: line, splitLine: line, axisLabel: { color: colour("text") }, ...more };
}

// Of microjoules. Bars on a log scale begin at the power of ten below the least of them.
function energyAxis(energies) {
  const named = { name: "uJ", nameLocation: "middle", nameGap: 24 };
  if (!page.log) return axisOf("value", named);
  const least = 10 ** Math.floor(Math.log10(Math.min(...energies.filter((energy) => energy > 0), Infinity)) - 1e-9);
  return axisOf("log", { ...named, ...(Number.isFinite(least) ? { min: least, startValue: least } : {}) });
}

// Names along the side of bars, shortened from the front where there is no room: the end tells them apart.
function namesAxis(names) {
  const most = isNarrow() ? 24 : 40;
  const label = { color: colour("text"), interval: 0, fontSize: isNarrow() ? 10 : 11, formatter: (name) => shortened(name, most) };
  return axisOf("category", { data: names, inverse: true, axisLabel: label, splitLine: { show: false } });
}

function shortened(name, most) {
  return name.length > most ? `…${name.slice(1 - most)}` : name;
}

// A tooltip of text alone.
function tooltipOf(lines) {
  return {
    renderMode: "richText",
    backgroundColor: colour("card"),
    borderColor: colour("line"),
    textStyle: { color: colour("text") },
    formatter: (item) => lines(item).join("\n"),
  };
}

function legendOf(names) {
  return { data: names, top: 0, textStyle: { color: colour("text") } };
}
