// Asking all models that are shown: a prompt, how to sample, and their answers as they are written.

// Temperature, top-p, longest answer and seed; `read()` gives their values, which Python puts into their ranges.
function samplingFields() {
  const number = (min, max, step) => make("input", { type: "number", min, max, step, class: "cmp-number" });
  const fields = { temperature: number(0, 2, 0.1), top_p: number(0.05, 1, 0.05), max_tokens: number(1, 2048, 1), seed: number(0, 1e9, 1) };
  const names = { temperature: "Temperature", top_p: "Top-p", max_tokens: "Longest answer", seed: "Seed" };
  const hints = {
    temperature: "0: always the likeliest token; 1: the model's own distribution",
    top_p: "sample among the likeliest tokens that together have this probability; 1: among all",
    max_tokens: "in tokens", seed: "the same seed and settings give the same answer",
  };
  const node = make("div", { class: "lab-row", role: "group", "aria-label": "Sampling" },
    ...Object.entries(fields).map(([key, field]) => (field.title = hints[key], labelled(names[key], field))));
  return {
    node,
    read: () => Object.fromEntries(Object.entries(fields).map(([key, f]) => [key, f.valueAsNumber]).filter(([, v]) => Number.isFinite(v))),
    write(how) {
      for (const [key, field] of Object.entries(fields)) if (document.activeElement !== field) field.value = how[key];
    },
  };
}

function livePanel(page) {
  let state = { busy: false, columns: [] };
  let since = 0;
  let count = 0;
  const box = make("textarea", { rows: "2", "aria-label": "Your prompt", placeholder: "Ask all of them something … (Ctrl+Enter)" });
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    event.stopPropagation(); // else JupyterLab would run the cell
    ask();
  });
  const start = button("Ask", () => ask(), { class: "lab-button lab-main", title: "or Ctrl+Enter in the box" });
  const stop = button("Stop", () => isOff(stop) || page.say("stop"));
  const how = samplingFields();
  const row = cardRow((at) => vote(at));
  const ballot = ballotRow(page, vote);
  const node = make("div", {}, box, make("div", { class: "lab-row cmp-leaf" }, start, stop, how.node), row.node, ballot.node);
  const key = () => `${count}/${state.seal}`;
  const place = (name) => state.columns.findIndex((c) => c.name === name);

  function ask() {
    if (isOff(start)) return;
    page.say("ask", { text: box.value, how: how.read() });
  }
  function show(news, event = false) {
    if (state.busy && !news.busy) [since, count] = [performance.now(), count + 1];
    state = news;
    if (news.text && document.activeElement !== box) box.value = news.text;
    off(start, news.busy);
    off(stop, !news.busy);
    const votable = answered().length > 1;
    const cards = row.fit(news.columns.length);
    news.columns.forEach((c, at) => {
      cards[at].head(page.model(c.name), "Best");
      cards[at].facts(c.facts || []);
      set(at, c);
      cards[at].votes(page.votes() ? votable && Boolean(c.parts) : null, votable && answered()[ballot.chosen(key())] === c);
    });
    ballot.show(key());
    if (!votable) ballot.node.hidden = true;
    if (event) page.tell(news.busy ? "Asked" : "All have answered");
  }
  function set(at, column) {
    const card = row.get(at);
    if (column.state === "failed") card.fail(column.text);
    else if (column.parts) card.parts(column.parts, page.marks());
    else card.plain(column.text);
    card.state(said[column.state] || (column.name === page.reference() && column.parts ? "reference" : ""), column.state === "failed");
  }
  // One column's news while it is written; screen readers hear of an answer once, when it is there.
  function column(m) {
    const at = place(m.column);
    if (at < 0) return;
    Object.assign(state.columns[at], { state: m.state, text: m.text, parts: undefined });
    set(at, state.columns[at]);
    const name = page.model(m.column).label;
    if (m.state === "done") page.tell(`${name} has answered`);
    if (m.state === "loading") page.tell(`${name}: loading the weights`);
    if (m.state === "failed") page.tell(`${name} could not answer: ${m.text}`);
  }
  function written(m) {
    const at = place(m.column);
    if (at < 0) return;
    state.columns[at].text = m.text === undefined ? state.columns[at].text + m.add : m.text;
    if (m.text === undefined) row.get(at).add(m.add);
    else row.get(at).plain(m.text);
  }
  // Those who answered: who failed cannot be voted for.
  const answered = () => (state.busy ? [] : state.columns.filter((c) => c.parts));
  function vote(choice) {
    const among = answered();
    const best = typeof choice === "number" ? among.indexOf(state.columns[choice]) : choice;
    if (among.length < 2 || best === -1 || !page.votes()) return;
    const letter = { prompt: state.record, answers: among.map((c) => c.text), seal: state.seal, blind: false, choice: best, seconds: (performance.now() - since) / 1000 };
    ballot.cast(key(), letter, among.map((c) => page.model(c.name).label));
    show(state);
  }
  const pressed = (k) => !state.busy && ballot.pressed(k, state.columns.length);
  return { node, show, column, written, pressed, how, draw: () => show(state) };
}
