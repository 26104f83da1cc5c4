// The network as a graph: places are Python's, colours the energies under the prices chosen.
const graphState = { nodes: DATA.pieces ? "blocks" : "layers", chart: null };

function graphParts() {
  const blocks = graphState.nodes === "blocks";
  const members = blocks ? DATA.pieces.map((piece) => piece.layers) : DATA.layers.map((_, place) => [place]);
  return {
    names: (blocks ? DATA.pieces : DATA.layers).map((node) => node.name),
    joules: members.map((places) => places.reduce((sum, place) => sum + page.layers[place], 0)),
    members,
    ...(blocks ? DATA.piece_graph : DATA.graph),
  };
}

// In [0, 1]: where an energy stands between the least and the most that the colours show.
function heat(joules, least, most) {
  if (joules <= least) return 0;
  return page.log ? Math.log(joules / least) / Math.log(most / least) : joules / most;
}

function drawGraph() {
  const parts = graphParts(), { names, joules, members, edges } = parts, few = names.length < 60;
  const most = Math.max(...joules, 0) || 1, edge = isNarrow() ? 40 : 70;
  const least = page.log ? Math.max(most * 1e-6, 0.99 * Math.min(...joules.filter((energy) => energy > 0), most)) : 0;
  graphState.chart = draw("graph-chart", {
    tooltip: tooltipOf((item) => item.dataType === "node"
      ? [item.name, `${microjoules(joules[item.dataIndex])} uJ, ${percent(joules[item.dataIndex] / page.total || 0)}`]
      : [`${names[edges[item.dataIndex][0]]} → ${names[edges[item.dataIndex][1]]}`]),
    visualMap: {
      min: 0, max: 1, calculable: false, orient: "horizontal", left: 0, bottom: 0, itemHeight: 160, itemWidth: 10,
      text: [`${microjoules(most)} uJ`, page.log ? `${microjoules(least)} or less` : "0"],
      textStyle: { color: colour("text") }, inRange: { color: VIRIDIS },
    },
    series: [{
      type: "graph", layout: "none", roam: true, scaleLimit: { min: 0.5, max: 60 },
      left: edge, right: edge, top: 110, bottom: 60, edgeSymbol: ["none", "arrow"], edgeSymbolSize: few ? 6 : 3,
      data: graphNodes(parts, few, (energy) => heat(energy, least, most)), links: graphLinks(edges),
      itemStyle: { borderColor: colour("muted"), borderWidth: 1 },
      label: { show: true, color: colour("text"), fontSize: 10 }, labelLayout: { hideOverlap: true },
      emphasis: { focus: "adjacency" },
    }],
  }, isNarrow() ? 380 : 480);
  graphState.chart.off("click");
  graphState.chart.on("click", (item) => {
    if (item.dataType === "node") showMembers(names[item.dataIndex], members[item.dataIndex]);
  });
}

// Larger and brighter the more it costs; of many, neurons are round. Names in turn above and below.
function graphNodes({ names, joules, members, x, y }, few, heatOf) {
  const stretch = document.getElementById("graph-chart").clientWidth / (Math.max(...x) || 1) || 1;
  const lift = 340 / Math.max(...y, 6);
  return names.map((name, at) => ({
    name, id: String(at), x: x[at] * stretch, y: y[at] * lift, value: heatOf(joules[at]),
    symbolSize: (few ? 12 : 5) + (few ? 14 : 9) * heatOf(joules[at]),
    symbol: DATA.layers[members[at][0]].kind === "neuron" && !few ? "circle" : "roundRect",
    label: { formatter: shortened(name, 28), position: x[at] % 2 ? "top" : "bottom" },
  }));
}

// Dashed: read a step late.
function graphLinks(edges) {
  return edges.map(([from, to, late]) => ({
    source: String(from), target: String(to),
    lineStyle: { color: colour("muted"), opacity: 0.6, type: late ? "dashed" : "solid", curveness: late ? 0.3 : 0.1 },
  }));
}

function beginGraph() {
  const select = document.getElementById("graph-nodes");
  if (select) {
    select.addEventListener("change", () => {
      graphState.nodes = select.value;
      drawGraph();
    });
  }
  document.getElementById("graph-reset").addEventListener("click", drawGraph);
  pricedListeners.push(drawGraph);
}

beginGraph();
