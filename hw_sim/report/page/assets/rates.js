// Firing rates, a row for each layer and a column for each step.
function drawRates() {
  const { layers, rates, per_column: perColumn } = DATA.rates;
  const names = layers.map((place) => DATA.layers[place].name), steps = rates[0].map((_, column) => String(column * perColumn + 1));
  const cells = rates.flatMap((row, y) => row.map((rate, x) => [x, y, rate])), most = Math.max(...rates.flat(), 0) || 1;
  const chart = draw("rates-chart", {
    grid: { left: 8, right: 24, top: 8, bottom: 64, containLabel: true },
    tooltip: tooltipOf((item) => [names[item.value[1]], `step ${steps[item.value[0]]}: ${percent(item.value[2])}`]),
    xAxis: axisOf("category", { data: steps, name: "step", nameLocation: "middle", nameGap: 24, splitLine: { show: false } }),
    yAxis: namesAxis(names),
    visualMap: {
      min: 0, max: most, orient: "horizontal", left: "center", bottom: 0, itemHeight: 160, itemWidth: 10,
      text: [percent(most), "0 %"], textStyle: { color: colour("text") }, inRange: { color: VIRIDIS },
    },
    series: [{ type: "heatmap", data: cells, label: { show: steps.length <= 8, formatter: (item) => percent(item.value[2]), fontSize: 10 } }],
  }, 90 + 20 * names.length);
  chart.off("click");
  chart.on("click", (item) => showLayer(layers[item.value[1]]));
}

themeListeners.push(drawRates);
drawRates();
