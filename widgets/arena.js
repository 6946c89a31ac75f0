// Blind rounds: two answers without names, a vote, then the names; and how often each model has won so far.

const VERDICTS = [[0, "A is better", "a"], [1, "B is better", "b"], ["tie", "Tie", "t"], ["both_bad", "Both bad", "x"], ["skip", "Skip", "s"]];

function arenaPanel(page) {
  let round = null;
  let mine = null; // { id, choice, round } of this page's vote
  let since = 0;
  let asked = false;
  const box = make("input", { type: "text", size: "34", placeholder: "empty: one of the evaluation prompts", onkeydown: (e) => e.key === "Enter" && draw() });
  const next = button("Next round", draw, { class: "lab-button lab-main", title: "key: n" });
  const stop = button("Stop", () => isOff(stop) || page.say("stop"));
  const prompt = promptBox();
  const row = cardRow(vote);
  const verdicts = VERDICTS.map(([choice, text, key]) => {
    const node = button(text, () => isOff(node) || vote(choice), { "aria-pressed": "false" });
    node.append(" ", make("kbd", { text: key }));
    return node;
  });
  const back = button("Take back", undo, { title: "key: u" });
  const told = make("span", { class: "lab-faint" });
  const bar = make("div", { class: "lab-row cmp-ballot", role: "group", "aria-label": "Your vote" }, ...verdicts, back, told);
  const table = make("tbody");
  const standings = make("table", { class: "cmp-standings" },
    make("caption", { text: "Win rate over opponents drawn by chance, ties half, with its 95 % interval (Wilson). Only blind rounds count." }),
    make("thead", {}, make("tr", {}, ...["Model", "Rounds", "Win rate", ""].map((text) => make("th", { scope: "col", text })))), table);
  const hint = make("p", { class: "lab-faint", text: "Two answers without names: say which is better, then see who wrote them." });
  const node = make("div", {}, make("div", { class: "lab-row cmp-leaf" }, labelled("Prompt", box), next, stop), hint, prompt.node, row.node, bar, standings);

  function draw() {
    if (asked || (round && round.live && !round.ready && !isOff(stop))) return;
    asked = true;
    page.say("round", { text: box.value, how: page.how() });
  }
  function show(news, event = false) {
    asked = false;
    if (news && (!round || round.id !== news.id)) mine = null;
    if (news && news.ready && !(round && round.id === news.id && round.ready)) {
      since = performance.now();
      if (event) page.tell("Two answers: which is better?");
    }
    round = news;
    paint();
  }
  function paint() {
    for (const part of [prompt.node, row.node, bar]) part.hidden = !round;
    hint.hidden = Boolean(round);
    const writing = Boolean(round && round.live && !round.ready && !round.columns.some((c) => c.state === "failed" || c.state === "stopped"));
    stop.hidden = !writing;
    off(stop, !writing);
    off(next, writing);
    if (!round) return;
    const open = round.names.length > 0;
    prompt.show(round.turns, open ? round.kind.replaceAll("_", " ") : "");
    const cards = row.fit(2);
    round.columns.forEach((c, at) => {
      const who = open ? round.names[at] : { label: c.name };
      cards[at].head(open ? { label: `${c.name}: ${who.label}`, more: who.run, colour: who.colour } : who, "");
      if (c.state === "failed") cards[at].fail("This model could not answer. Draw another round.");
      else cards[at].plain(c.text);
      cards[at].state(open && mine && mine.choice === at ? "your choice" : said[c.state] || "");
      cards[at].facts((open && who.facts) || []);
      cards[at].votes(null);
    });
    verdicts.forEach((v, i) => {
      off(v, !round.ready || open || mine || !page.votes());
      v.setAttribute("aria-pressed", String(Boolean(mine) && mine.choice === VERDICTS[i][0]));
    });
    back.hidden = !mine;
    told.textContent = page.votes() ? (open ? "Next round: n" : "") : "There is no vote store here.";
  }
  function vote(choice) {
    if (!round || !round.ready || round.names.length || mine || !page.votes()) return;
    mine = { id: uid(), choice };
    const answers = round.columns.map((c) => c.text);
    page.post({ id: mine.id, round: round.id, prompt: round.record, answers, seal: round.seal, blind: true, choice,
      seconds: (performance.now() - since) / 1000, time: new Date().toISOString() });
    paint();
  }
  function undo() {
    if (!mine) return;
    page.post({ id: `undo-${mine.id}`, undo: mine.id });
    page.tell("Taken back: this round does not count");
    mine = null;
    paint();
  }
  // The store has the vote: now the names may be seen.
  function kept(m) {
    const names = mine && m.names[mine.id];
    if (names && round && !round.names.length) {
      round.names = names;
      page.tell(`A was ${names[0].label}, B was ${names[1].label}`);
      paint();
    }
    rank(m.standings);
  }
  function rank(rows) {
    standings.hidden = !rows.length;
    table.replaceChildren(...rows.map((r) => {
      const bar = make("div", { class: "cmp-bar", "aria-hidden": "true" }, make("i"), make("b"));
      bar.firstChild.style.left = `${100 * r.ci[0]}%`;
      bar.firstChild.style.width = `${100 * (r.ci[1] - r.ci[0])}%`;
      bar.lastChild.style.left = `${100 * r.rate}%`;
      const dot = make("span", { class: "cmp-dot", "aria-hidden": "true" });
      dot.style.background = r.colour;
      const name = make("th", { scope: "row" }, dot, r.label, make("span", { class: "lab-faint", text: r.run ? ` ${r.run}` : "" }));
      return make("tr", {}, name, make("td", { text: String(r.rounds) }), make("td", { text: r.told }), make("td", {}, bar));
    }));
  }
  function column(m) {
    const at = round ? round.columns.findIndex((c) => c.name === m.column) : -1;
    if (at < 0 || round.ready) return;
    Object.assign(round.columns[at], { state: m.state, text: m.text });
    paint();
  }
  function written(m) {
    const at = round ? round.columns.findIndex((c) => c.name === m.column) : -1;
    if (at < 0 || round.ready) return;
    round.columns[at].text = m.text === undefined ? round.columns[at].text + m.add : m.text;
    if (m.text === undefined) row.get(at).add(m.add);
    else row.get(at).plain(m.text);
  }
  function pressed(key) {
    if (key === "n") return draw(), true;
    if (key === "u") return undo(), true;
    const hit = VERDICTS.find(([, , k]) => k === key.toLowerCase()) || (key === "ArrowLeft" && [0]) || (key === "ArrowRight" && [1]);
    return hit ? (vote(hit[0]), true) : false;
  }
  return { node, show, kept, rank, column, written, pressed, draw: paint, failed: () => { asked = false; } };
}
