// One prompt, several models: three tabs over one choice of models. Votes lie in an outbox until Python says they are stored.

const TABS = [["live", "Ask live"], ["browse", "Stored answers"], ["arena", "Blind arena"]];

function render({ model, el }) {
  let state = { models: [], shown: [], reference: "", votes: false, mode: "live" };
  let box = null;
  let gone = false;
  const root = frame(el, "Compare models", (key, event) => {
    if (event.target.closest("[role=tablist]") && key.startsWith("Arrow")) return turn(key === "ArrowRight" ? 1 : -1);
    return panels[state.mode].pressed(key);
  });
  root.classList.add("cmp");
  root.addEventListener("keydown", (e) => e.key === "Escape" && e.target !== root && root.focus({ preventScroll: true })); // out of a field
  const status = spoken();
  const trouble = make("div", { class: "lab-warn", role: "alert" });
  const unsaved = make("span", { class: "lab-warn cmp-unsaved", role: "status" });
  const page = {
    say(...told) {
      trouble.textContent = "";
      return say(...told);
    },
    model: (name) => state.models.find((m) => m.name === name) || { label: name },
    shown: () => state.models.filter((m) => state.shown.includes(m.name)),
    reference: () => state.reference,
    marks: () => marks.value,
    votes: () => state.votes,
    how: () => panels.live.how.read(),
    redraw: () => panels[state.mode].draw(),
    tell: (text) => (status.textContent = text),
    post(letter) {
      box.put(letter);
      say("letters", { letters: [letter] });
      waiting();
    },
  };
  const panels = { live: livePanel(page), browse: browsePanel(page), arena: arenaPanel(page) };
  const unique = uid();
  const tabs = TABS.map(([mode, text]) =>
    make("button", { type: "button", class: "lab-button", role: "tab", id: `${unique}-${mode}`, "aria-controls": `${unique}-${mode}-panel`, text, onclick: () => open(mode) }));
  const bodies = TABS.map(([mode]) =>
    make("div", { role: "tabpanel", id: `${unique}-${mode}-panel`, "aria-labelledby": `${unique}-${mode}`, hidden: true }, panels[mode].node));
  const chips = make("div", { class: "lab-row", role: "group", "aria-label": "Models side by side, two to six" });
  const marks = make("select", { "aria-label": "How differences are shown", onchange: () => page.redraw() });
  choices(marks, [["new", "underlined"], ["gone", "with what is gone"], ["none", "not marked"]], "new");
  const reference = make("select", { onchange: () => page.say("reference", { name: reference.value }) });
  const from = make("div", { class: "lab-row" }, labelled("Differences from", reference), marks);
  root.append(
    make("div", { class: "lab-row cmp-top" }, make("div", { class: "lab-row", role: "tablist", "aria-label": "How to compare" }, ...tabs), unsaved),
    make("div", { class: "lab-row cmp-models" }, chips, from), ...bodies, trouble, status);

  function open(mode) {
    state.mode = mode;
    page.say("mode", { mode });
    dress();
  }
  function turn(by) {
    const at = TABS.findIndex(([mode]) => mode === state.mode);
    open(TABS[(at + by + TABS.length) % TABS.length][0]);
    tabs[TABS.findIndex(([mode]) => mode === state.mode)].focus();
    return true;
  }
  function dress() {
    TABS.forEach(([mode], i) => {
      const on = mode === state.mode;
      tabs[i].setAttribute("aria-selected", String(on));
      tabs[i].tabIndex = on ? 0 : -1;
      bodies[i].hidden = !on;
    });
    from.hidden = state.mode === "arena";
  }
  function choose(name) {
    const on = state.shown.includes(name);
    page.say("shown", { names: on ? state.shown.filter((n) => n !== name) : [...state.shown, name] });
  }
  function models() {
    const key = JSON.stringify(state.models);
    if (chips.dataset.models !== key) {
      chips.dataset.models = key;
      chips.replaceChildren(...state.models.map((m) => {
        const dot = make("span", { class: "cmp-dot", "aria-hidden": "true" });
        dot.style.background = m.colour;
        return make("button", { type: "button", class: "lab-button cmp-chip", title: m.more || m.name, onclick: () => choose(m.name) }, dot, m.label, m.more ? make("span", { class: "lab-faint", text: ` ${m.more}` }) : null);
      }));
    }
    state.models.forEach((m, i) => chips.children[i].setAttribute("aria-pressed", String(state.shown.includes(m.name))));
    choices(reference, page.shown().map((m) => [m.name, m.label]), state.reference);
  }
  function waiting() {
    const n = box ? box.all().filter((l) => !l.undo).length : 0;
    unsaved.textContent = n ? `${n} not yet saved${box.kept() ? "" : " (a reload would lose them)"}` : "";
  }
  const flush = () => box && box.all().length && say("letters", { letters: box.all() });

  const to = (kind) => (m) => { if (panels[m.to][kind]) panels[m.to][kind](m); };
  const [say, leave] = talk(model, {
    snapshot(m) {
      state = m;
      box = m.outbox ? outbox(m.outbox) : null;
      dress();
      models();
      panels.live.how.write(m.how);
      panels.live.show(m.live);
      panels.browse.show(m.browse);
      panels.arena.show(m.round);
      panels.arena.rank(m.standings);
      waiting();
      flush();
    },
    browse: (m) => panels.browse.show(m),
    asked: (m) => panels.live.show(m.live, true),
    round: (m) => panels.arena.show(m.round, true),
    column: to("column"),
    written: to("written"),
    kept(m) {
      box.drop([...m.ids, ...m.refused.map((r) => r.id)]);
      waiting();
      panels.arena.kept(m);
      if (m.refused.length) trouble.textContent = m.refused[0].text;
    },
    error(m) {
      panels.arena.failed();
      trouble.textContent = m.text;
    },
  });
  const again = setInterval(() => gone || flush(), 4000);
  dress();
  say("ready");
  return () => {
    gone = true;
    clearInterval(again);
    leave();
  };
}
export default { render };
