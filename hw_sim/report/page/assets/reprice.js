// Every number is Python's: an energy is fixed + price factor * per_ac + seconds * per_second, tabled by reuse and memory.
const AT = (axes, position, name) => axes.find((axis) => axis.name === name).positions[position[name]];

function tabled(tables, way, position) {
  const sizes = tables[Math.min(way, tables.length - 1)];
  return sizes[Math.min(position.sram, sizes.length - 1)];
}

function energyAt(row, side, axes, position) {
  const table = row.sides[side];
  const [fixed, perAc] = tabled(table.energies, position.reuse, position);
  return fixed + AT(axes, position, "ac") * perAc + AT(axes, position, "time") * table.per_second;
}

const wayOf = (row, position) => row.ways[Math.min(position.reuse, row.ways.length - 1)];

// Joules of each layer, in order.
function layersAt(row, axes, position) {
  const fixed = tabled(row.layers.fixed, wayOf(row, position), position), factor = AT(axes, position, "ac");
  return fixed.map((joules, place) => joules + factor * row.layers.per_ac[place]);
}

// Parts that add up to the energy of the network.
function partsAt(row, axes, position) {
  const factor = AT(axes, position, "ac"), still = AT(axes, position, "time") * row.sides.network.per_second;
  const parts = row.parts.map((part) => ({
    label: part.label,
    operations: part.operations,
    joules: tabled(part.fixed, wayOf(row, position), position) + factor * part.per_ac,
  }));
  return still ? [...parts, { label: "static", operations: null, joules: still }] : parts;
}

function verdictAt(row, side, axes, position) {
  const ann = row.sides[side], network = energyAt(row, "network", axes, position);
  if (ann.no_answer) {
    const price = ann.saved_macs ? (network / ann.saved_macs) * 1e12 : null;
    return { word: "no answer", ratio: null, break_even_mac_pj: price };
  }
  const ratio = network / energyAt(row, side, axes, position);
  if (row.lower_bound && ratio < 1) return { word: "no answer", ratio: null, break_even_mac_pj: null };
  return { word: ratio < 1 ? "wins" : "loses", ratio: ratio, break_even_mac_pj: null };
}

function ratioAt(row, axes, position) {
  if (!row.ac_to_mac) return null;
  const factor = AT(axes, position, "ac"), { ac, mac, mac_per_ac } = row.ac_to_mac;
  return (factor * ac) / (mac + factor * mac_per_ac);
}

// Three digits, as Python writes them.
function few(number) {
  if (number >= 100) return digits(number);
  const rounded = Number(number.toPrecision(3));
  return rounded < 1e-4 ? rounded.toExponential().replace(/e-(\d)$/, "e-0$1") : String(rounded);
}

function verdictWords(verdict) {
  if (verdict.ratio !== null) return `${verdict.word}, ${few(verdict.ratio)}x`;
  if (verdict.break_even_mac_pj === null) return verdict.word;
  return `${verdict.word}; even at ${few(verdict.break_even_mac_pj)} pJ a MAC`;
}
