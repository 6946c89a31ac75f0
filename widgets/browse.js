// Leafing through stored answers: a filter, a place among what it finds, and everybody's answers to one prompt.

function browsePanel(page) {
  let state = null;
  let take = 0; // which of a model's answers to the prompt
  let since = 0;
  let shown = "";
  const send = (values) => page.say("filter", { values });
  const pick = (key) => make("select", { onchange: (e) => send({ [key]: e.target.value }) });
  const [kind, subject, who, order] = ["kind", "subject", "who", "order"].map(pick);
  let typing = 0;
  const search = make("input", { type: "search", size: "14", placeholder: "in prompts and answers", oninput: () => {
    clearTimeout(typing);
    typing = setTimeout(() => send({ text: search.value }), 250);
  } });
  const score = button("Score all with the reward model", () => isOff(score) || page.say("score"));
  const before = button("← Previous", () => isOff(before) || go(-1), { title: "key: ← or p" });
  const next = button("Next →", () => isOff(next) || go(1), { title: "key: → or n" });
  const place = make("span", { class: "cmp-place", "aria-live": "polite" });
  const other = button("", () => { take += 1; draw(); }, { title: "key: o" });
  const prompt = promptBox();
  const row = cardRow((at) => vote(at));
  const ballot = ballotRow(page, vote);
  const none = make("p", { class: "lab-faint", role: "status", text: "No prompt passes this filter." });
  const notice = make("p", { class: "lab-faint" });
  const node = make("div", {},
    make("div", { class: "lab-row cmp-filters", role: "group", "aria-label": "Filter" },
      labelled("Kind", kind), labelled("Model", subject), labelled("did", who), labelled("Order", order), labelled("Search", search)),
    make("div", { class: "lab-row cmp-leaf" }, before, next, place, other, score), prompt.node, none, row.node, ballot.node, notice);

  function show(news) {
    state = news;
    const label = (name) => page.model(name).label;
    const against = news.against ? label(news.against) : "the reference";
    choices(kind, [["", "all kinds"], ...news.kinds.map((k) => [k, k.replaceAll("_", " ")])], news.filter.kind);
    choices(subject, page.shown().filter((m) => m.stored && m.name !== news.against).map((m) => [m.name, m.label]), news.filter.subject);
    const can = news.score ? [["won", `won over ${against}`], ["lost", `lost to ${against}`], ["tied", "tied"]] : [];
    const hacked = news.rewarded ? [["hacked", "hacked: proxy up, score down"]] : [];
    choices(who, [["", "anything"], ...can, ...hacked], news.filter.who);
    choices(order, [["", "as stored"], ...(news.score ? [["change", "biggest change"], ["gain", "biggest gain"], ["loss", "biggest loss"]] : [])], news.filter.order);
    if (document.activeElement !== search) search.value = news.filter.text;
    score.hidden = news.rewarded || !news.scores || !news.of;
    off(score, news.scoring);
    score.textContent = news.scoring ? "the reward model is reading …" : "Score all with the reward model";
    score.title = "Then the filter can show where the proxy is up and the score down";
    notice.textContent = news.notice;
    draw();
  }

  function draw() {
    const item = state && state.item;
    const all = state && state.count === state.of;
    place.textContent = !state || !item ? "" : `${state.at + 1} of ${state.count}${all ? "" : ` (of ${state.of} prompts)`}`;
    for (const part of [prompt.node, row.node, ballot.node, before, next]) part.hidden = !item;
    none.hidden = Boolean(item);
    if (!state || !state.of) none.textContent = "These runs have no stored answers.";
    other.hidden = true;
    if (!item) return;
    off(before, state.at === 0);
    off(next, state.at + 1 >= state.count);
    prompt.show(item.turns, item.kind.replaceAll("_", " "));
    const most = Math.max(...item.columns.map((c) => c.cards.length));
    take %= most;
    other.hidden = most < 2;
    other.textContent = `Answer ${take + 1} of ${most}`;
    const key = itemKey();
    if (key !== shown) [shown, since] = [key, performance.now()];
    item.columns.forEach((column, at) => {
      const card = row.fit(item.columns.length)[at];
      const given = column.cards[take % column.cards.length];
      card.head(page.model(column.name), "Best");
      card.parts(given.parts, page.marks());
      card.facts(given.facts);
      card.state(column.name === state.against ? "reference" : column.change);
      card.votes(page.votes() ? true : null, ballot.chosen(key) === at);
    });
    ballot.show(key);
  }
  const itemKey = () => `${state.item.record.id}/${take}/${state.item.seal}`;
  const go = (by) => page.say("go", { at: state.at + by });

  function vote(choice) {
    if (!state || !state.item || !page.votes()) return;
    const { columns, record, seal } = state.item;
    const answers = columns.map((c) => c.cards[take % c.cards.length].text);
    ballot.cast(itemKey(), { prompt: record, answers, seal, blind: false, choice, seconds: (performance.now() - since) / 1000 }, columns.map((c) => page.model(c.name).label));
    draw();
  }

  function pressed(key) {
    if (!state || !state.item) return key === "/" && (search.focus(), true);
    if (key === "ArrowRight" || key === "n") return isOff(next) || go(1), true;
    if (key === "ArrowLeft" || key === "p") return isOff(before) || go(-1), true;
    if (key === "o") return other.hidden || other.click(), true;
    if (key === "/") return search.focus(), true;
    return ballot.pressed(key, state.item.columns.length);
  }
  return { node, show, pressed, draw };
}

// Under answers whose authors are known: a vote for the best (keys 1 to 6), a tie, all bad, and taking it back. A second vote
// on the same answers takes the place of the first.
function ballotRow(page, vote) {
  const cast = new Map(); // what was voted on → { id, choice }
  let now = "";
  const tie = button("Equally good", () => vote("tie"), { title: "key: 0", "aria-pressed": "false" });
  const bad = button("All bad", () => vote("both_bad"), { title: "key: x", "aria-pressed": "false" });
  const back = button("Take back", () => undo(now), { title: "key: u" });
  const node = make("div", { class: "lab-row cmp-ballot", role: "group", "aria-label": "Your vote" }, tie, bad, back);
  function undo(key) {
    const before = cast.get(key);
    if (!before) return;
    page.post({ id: `undo-${before.id}`, undo: before.id });
    cast.delete(key);
    page.redraw();
  }
  return {
    node,
    chosen: (key) => (cast.get(key) || {}).choice,
    show(key) {
      now = key;
      const mine = cast.get(key);
      node.hidden = !page.votes();
      tie.setAttribute("aria-pressed", String(Boolean(mine) && mine.choice === "tie"));
      bad.setAttribute("aria-pressed", String(Boolean(mine) && mine.choice === "both_bad"));
      back.hidden = !mine;
    },
    cast(key, letter, labels) {
      const { choice } = letter;
      if (cast.has(key)) undo(key);
      const id = uid();
      const words = { tie: "equally good", both_bad: "all bad" }[choice] || `${labels[choice]} is best of ${labels.length}`;
      cast.set(key, { id, choice });
      page.post({ ...letter, id, time: new Date().toISOString() });
      page.tell(`Your vote: ${words}`);
    },
    pressed(key, count) {
      if (!page.votes()) return false;
      if (/^[1-6]$/.test(key) && Number(key) <= count) return vote(Number(key) - 1), true;
      if (key === "0" || key === "x") return vote(key === "0" ? "tie" : "both_bad"), true;
      return key === "u" && (undo(now), true);
    },
  };
}
