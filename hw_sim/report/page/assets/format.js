// Numbers as text.
const thousands = (number) => Math.round(number).toLocaleString("en");

// Three digits at least, and all that stand before the point.
function digits(number) {
  if (number === 0) return "0";
  if (Math.abs(number) >= 100) return thousands(number);
  return Math.abs(number) < 1e-3 ? number.toExponential(2) : number.toPrecision(3);
}

const microjoules = (joules) => digits(joules * 1e6);

function compact(number) {
  for (const [factor, sign] of [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"]]) {
    if (Math.abs(number) >= factor) return (number / factor).toPrecision(3) + sign;
  }
  return String(number);
}

// Of a whole: two decimals, so that a column of them can be read down.
function shareWords(share) {
  if (share === 0) return "";
  return share < 5e-5 ? "< 0.01 %" : `${(100 * share).toFixed(2)} %`;
}

const percent = (share) => (share >= 0.9995 ? "100 %" : `${(100 * share).toPrecision(share < 0.001 ? 1 : 3)} %`);

// What a name holds must never become markup: names are those of a user's network.
function element(tag, text = "", properties = {}) {
  const made = Object.assign(document.createElement(tag), properties);
  made.textContent = text;
  return made;
}

function cell(text, isNumber = false) {
  return element("td", text, { className: isNumber ? "n" : "" });
}
