// Finished runs as a table: choose up to six, pin them, write a note; below it what two of them were not made alike by.

function render({ model, el }) {
  let state = { rows: [], chosen: [], changes: null };
  const lines = new Map(); // key → the parts of its row, kept so that focus stays
  const root = frame(el, "Finished runs", (key) => key === "/" && (search.focus(), true));
  root.classList.add("pick");
  const search = make("input", { type: "search", size: "18", placeholder: "name, recipe or note", "aria-label": "Search runs", oninput: sift });
  const recipe = make("select", { "aria-label": "Recipe", onchange: sift });
  const look = button("Look again", () => say("look"), { title: "runs may have been made since" });
  const count = make("span", { class: "lab-faint" });
  const heads = ["", "Run", "Recipe", "Changed", "Finished (UTC)", "Took", "Weights", "Note", ""];
  const body = make("tbody");
  const table = make("table", { class: "pick-table" },
    make("thead", {}, make("tr", {}, ...heads.map((text) => (text ? make("th", { scope: "col", text }) : make("td"))))), body);
  const scroll = make("div", { class: "pick-scroll", tabindex: "0", role: "region", "aria-label": "Table of runs" }, table);
  const [left, right] = ["First run", "Second run"].map((label) => make("select", { "aria-label": label, onchange: differ }));
  const differences = make("tbody");
  const none = make("p", { class: "lab-faint", text: "These two were made alike." });
  const compared = make("table", { class: "pick-table" },
    make("thead", {}, make("tr", {}, make("th", { scope: "col", text: "Setting" }), make("th", { scope: "col" }, left), make("th", { scope: "col" }, right))), differences);
  const chosen = make("div", { class: "lab-faint pick-chosen" });
  const changes = make("details", { open: true }, make("summary", { text: "What changed between two of them" }), make("div", { class: "pick-scroll pick-changes", tabindex: "0", role: "region", "aria-label": "What changed" }, compared), none);
  const trouble = make("div", { class: "lab-warn", role: "alert" });
  const status = spoken();
  root.append(make("div", { class: "lab-row" }, search, recipe, look, count), scroll, chosen, changes, trouble, status);

  function line(row) {
    const dot = make("span", { class: "pick-dot", "aria-hidden": "true" });
    const box = make("input", { type: "checkbox", "aria-label": `Choose ${row.key}`, onchange: () => tell("choose", { key: row.key, on: box.checked }) });
    const note = make("input", { type: "text", size: "18", maxlength: "200", "aria-label": `Note for ${row.key}`, placeholder: "note",
      onkeydown: (e) => e.key === "Enter" && note.blur(), onchange: () => tell("note", { key: row.key, text: note.value }) });
    const pin = button("Pin", () => tell("pin", { key: row.key, on: pin.getAttribute("aria-pressed") !== "true" }), { class: "lab-button pick-pin", "aria-label": `Pin ${row.key}`, title: "a pinned run's weights are never cleaned away" });
    const cells = { label: make("span"), id: make("span", { class: "lab-faint pick-id" }), recipe: make("td"), changed: make("td"), finished: make("td"), took: make("td"), weights: make("td"), stopped: make("div", { class: "lab-warn" }) };
    dot.style.background = row.colour;
    const node = make("tr", {}, make("td", {}, box),
      make("th", { scope: "row" }, make("span", { class: "pick-name" }, dot, cells.label, cells.id), cells.stopped),
      cells.recipe, cells.changed, cells.finished, cells.took, cells.weights, make("td", {}, note), make("td", {}, pin));
    return { node, box, note, pin, cells };
  }
  function fill(row) {
    if (!lines.has(row.key)) lines.set(row.key, line(row));
    const one = lines.get(row.key);
    for (const [key, cell] of Object.entries(one.cells)) cell.textContent = row[key];
    one.cells.weights.classList.toggle("lab-warn", row.weights === "cleaned away");
    if (document.activeElement !== one.note) one.note.value = row.note;
    one.pin.setAttribute("aria-pressed", String(row.pinned));
    one.pin.textContent = row.pinned ? "Pinned" : "Pin";
    one.box.checked = state.chosen.includes(row.key);
    return one.node;
  }
  function draw() {
    const nodes = state.rows.map(fill);
    if (nodes.length !== body.children.length || nodes.some((n, i) => n !== body.children[i])) body.replaceChildren(...nodes);
    const recipes = [...new Set(state.rows.map((r) => r.recipe))].sort();
    options(recipe, [["", "all recipes"], ...recipes.map((r) => [r, r])], recipe.value);
    sift();
    contrast();
  }
  function sift() {
    const wanted = search.value.toLowerCase();
    let seen = 0;
    for (const row of state.rows) {
      const words = [row.label, row.key, row.changed, row.note, row.stopped].join(" ").toLowerCase();
      const fits = (!recipe.value || row.recipe === recipe.value) && words.includes(wanted);
      lines.get(row.key).node.hidden = !fits;
      seen += fits;
    }
    chosen.textContent = state.chosen.length ? `Chosen, in this order: ${state.chosen.join(", ")}` : "Choose up to six runs.";
    const shown = seen === state.rows.length ? `${seen} runs` : `${seen} of ${state.rows.length} runs`;
    count.textContent = state.rows.length ? `${shown}, ${state.chosen.length} chosen` : "There are no finished runs here yet.";
  }
  function contrast() {
    const c = state.changes;
    changes.hidden = !c;
    if (!c) return;
    const names = state.chosen.map((key) => [key, key]);
    options(left, names, c.left);
    options(right, names, c.right);
    none.hidden = c.rows.length > 0;
    differences.replaceChildren(...c.rows.map(([key, a, b]) => make("tr", {}, make("th", { scope: "row", text: key }), make("td", { text: a }), make("td", { text: b }))));
  }
  function options(select, rows, value) {
    const key = JSON.stringify(rows);
    if (select.dataset.rows !== key) {
      select.dataset.rows = key;
      select.replaceChildren(...rows.map(([v, text]) => make("option", { value: v, text })));
    }
    select.value = rows.some(([v]) => v === value) ? value : rows[0][0];
  }
  function differ() {
    tell("differ", { left: left.value, right: right.value });
  }
  function tell(kind, content) {
    trouble.textContent = "";
    say(kind, content);
  }

  const [say, leave] = talk(model, {
    snapshot(m) {
      const before = state.chosen.length;
      state = m;
      draw();
      if (before !== m.chosen.length) status.textContent = `${m.chosen.length} chosen`;
    },
    row(m) {
      state.rows = state.rows.map((r) => (r.key === m.row.key ? m.row : r));
      fill(m.row);
      sift();
      status.textContent = m.what;
    },
    changes(m) {
      state.changes = m.changes;
      contrast();
    },
    error: (m) => (trouble.textContent = m.text),
  });
  say("ready");
  return leave;
}
export default { render };
