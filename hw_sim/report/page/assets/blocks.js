// Energy by block, told apart by what the layers read: what multiplies, what accumulates, what fires.
const MOST_BLOCKS = 40;
const SOURCES = { analog: "read real values", spike: "read spikes", neuron: "neurons", other: "element-wise and wiring" };

function sourceOf(layer) {
  if (layer.kind === "neuron" || layer.chances) return "neuron";
  if (layer.acs) return "spike";
  return layer.macs ? "analog" : "other";
}

function blockSums() {
  const sums = DATA.blocks.map((block) => {
    const of = { name: block.name, layers: block.layers, analog: 0, spike: 0, neuron: 0, other: 0, all: 0 };
    for (const place of block.layers) {
      of[sourceOf(DATA.layers[place])] += page.layers[place];
      of.all += page.layers[place];
    }
    return of;
  });
  const least = [...sums].sort((a, b) => b.all - a.all).slice(0, MOST_BLOCKS).pop();
  return sums.filter((of) => of.all > 0 && of.all >= least.all);
}

function drawBlocks() {
  const sums = blockSums(), present = Object.keys(SOURCES).filter((source) => sums.some((of) => of[source] > 0));
  const rows = page.log ? present.length : 1, positive = (joules) => (joules > 0 ? joules * 1e6 : null);
  const chart = draw("blocks-chart", {
    grid: { left: 8, right: 24, top: 32, bottom: 28, containLabel: true },
    legend: legendOf(present.map((source) => SOURCES[source])),
    tooltip: tooltipOf((item) => [
      item.name, `${item.seriesName}: ${digits(item.value)} uJ, ${percent((item.value * 1e-6) / page.total)} of all`,
    ]),
    xAxis: energyAxis(sums.flatMap((of) => present.map((source) => of[source] * 1e6))),
    yAxis: namesAxis(sums.map((of) => of.name)),
    series: present.map((source) => ({
      name: SOURCES[source], type: "bar", stack: page.log ? undefined : "all", itemStyle: { color: COLOURS[source] },
      data: sums.map((of) => positive(of[source])),
    })),
  }, 90 + sums.length * (8 + 8 * rows));
  chart.off("click");
  chart.on("click", (item) => showMembers(item.name, sums[item.dataIndex].layers));
}

pricedListeners.push(drawBlocks);
