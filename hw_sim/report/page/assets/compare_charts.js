// Both runs side by side: energy by block, firing rate by layer.
const SIDES = [["A", COLOURS.analog], ["B", COLOURS.spike]];

function drawSides(id, names, values, axis, words) {
  draw(id, {
    grid: { left: 8, right: 24, top: 32, bottom: 28, containLabel: true },
    legend: legendOf(SIDES.map(([name]) => name)),
    tooltip: tooltipOf((item) => [names[item.dataIndex], `${item.seriesName}: ${words(item.value)}`]),
    xAxis: axis,
    yAxis: namesAxis(names),
    series: SIDES.map(([name, shade], side) => ({
      name, type: "bar", itemStyle: { color: shade }, data: values.map((pair) => (pair[side] > 0 ? pair[side] : null)),
    })),
  }, 90 + 24 * names.length);
}

function drawBlockPairs() {
  const sum = (joules, places) => places.reduce((all, place) => all + joules[place], 0) * 1e6;
  const sums = DATA.block_pairs.map((pair) => [sum(page.layers, pair.a), sum(other.layers, pair.b)]);
  const shown = [...sums.keys()].filter((at) => sums[at][0] > 0 || sums[at][1] > 0);
  const values = shown.map((at) => sums[at]);
  drawSides("blocks-chart", shown.map((at) => DATA.block_pairs[at].name), values, energyAxis(values.flat()), (uj) => `${digits(uj)} uJ`);
}

function drawRatePairs() {
  const rate = (layers, place) => (place === null || !layers[place].chances ? null : layers[place].spikes / layers[place].chances);
  const pairs = DATA.pairs.map((pair) => [pair.name, rate(DATA.layers, pair.a), rate(OTHER.layers, pair.b)]);
  const firing = pairs.filter(([, a, b]) => a !== null || b !== null);
  const axis = axisOf("value", { axisLabel: { color: colour("text"), formatter: percent } });
  drawSides("rates-chart", firing.map(([name]) => name), firing.map(([, ...rates]) => rates), axis, percent);
}

pricedListeners.push(drawBlockPairs);
if (DATA.fires) {
  themeListeners.push(drawRatePairs);
  drawRatePairs();
}
