// A table that sorts by any column. columns: [title, value of an item, whether it is a number]; rowOf makes an item's row.
function sortableTable(id, columns, rowOf) {
  const state = { column: null, descending: true }, table = document.getElementById(id);
  let show = () => {};

  function sorted(items) {
    if (state.column === null) return items;
    const [, value] = columns[state.column], sign = state.descending ? -1 : 1;
    const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
    return items.map((item, at) => [value(item), at, item])
      .sort((a, b) => sign * order(a[0], b[0]) || a[1] - b[1])
      .map(([, , item]) => item);
  }

  // Once: largest, or first of the alphabet, first; again: the other way; a third time: in the order of the network.
  function sortBy(column) {
    const first = columns[column][2];
    if (state.column !== column) Object.assign(state, { column, descending: first });
    else if (state.descending === first) state.descending = !first;
    else state.column = null;
    [...table.tHead.rows[0].cells].forEach((head, at) => {
      head.setAttribute("aria-sort", at !== state.column ? "none" : state.descending ? "descending" : "ascending");
    });
    show();
  }

  table.tHead.rows[0].replaceChildren(...columns.map(([title, , isNumber], column) => {
    const head = element("th", "", { scope: "col", className: isNumber ? "n" : "" });
    const button = element("button", title, { type: "button" });
    button.addEventListener("click", () => sortBy(column));
    head.setAttribute("aria-sort", "none");
    head.append(button);
    return head;
  }));
  return {
    sorted,
    // itemsShown gives the items there are now, footOf the row below them.
    fill(itemsShown, footOf) {
      show = () => {
        const items = itemsShown();
        table.tBodies[0].replaceChildren(...sorted(items).map(rowOf));
        table.tFoot.replaceChildren(footOf(items));
      };
      show();
    },
  };
}

// Controls that a table is filtered by tell it when they change.
function onFilters(ids, listener) {
  ids.forEach((id) => document.getElementById(id).addEventListener("input", listener));
}

function fillChoices(id, values) {
  document.getElementById(id).append(...[...new Set(values)].sort().map((value) => element("option", value, { value })));
}
