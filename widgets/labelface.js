// What the labeller looks like: it draws one question and hears clicks, and knows nothing of Python or of the outbox.

// Key, words, ranks by place ("same": all are 1; none: read from the cards), flag.
const ACTIONS = {
  pair: [["a", "A is better", [1, 2]], ["b", "B is better", [2, 1]], ["t", "Tie", "same"], ["x", "Both bad", "same", "both_bad"], ["s", "Skip", [], "skip"]],
  ranking: [["Enter", "Save this order"], ["x", "All bad", "same", "both_bad"], ["s", "Skip", [], "skip"]],
  thumb: [["g", "Good", [1]], ["b", "Bad", [2]], ["s", "Skip", [], "skip"]],
};
const ALIASES = { pair: { ArrowLeft: "a", ArrowRight: "b" }, thumb: { ArrowUp: "g", ArrowDown: "b" }, ranking: {} };
const TITLES = { pair: "Which answer is better?", ranking: "Put the answers in order, best first.", thumb: "Is this a good answer?" };
const MODES = { pair: "Pairs", ranking: "Rankings", thumb: "Thumbs" };
const KEYS = {
  pair: "a or ← A · b or → B · t tie · x both bad · s skip · u undo · 1–9 reasons · e better answer",
  ranking: "↑ ↓ choose · space pick up, then ↑ ↓ move · 1–9 to that place · = as good as the one above · Enter save · x all bad · s skip · u undo · e better answer",
  thumb: "g or ↑ good · b or ↓ bad · s skip · u undo · 1–9 reasons · e better answer",
};

// `on` has judge(action), undo(), rater(name), mode(name), ask(text), discard(), tags(text), key(key).
function labelFace(el, on) {
  const root = frame(el, "Labeller", (key, event) => {
    if (event.repeat && !(board && key.startsWith("Arrow"))) return true; // a key held down is one key
    return own(key) || on.key(key);
  });
  const part = (name, tag = "div", more = {}) => make(tag, { class: `label-${name}`, ...more });
  const group = (name, label) => make("div", { class: `lab-row label-${name}`, role: "group", "aria-label": label });
  const tags = new Set();
  let question = null;
  let board = null;

  const rater = part("rater", "input", { maxlength: "60", autocomplete: "off", spellcheck: "false", onchange: () => on.rater(rater.value) });
  const modes = group("modes", "What to judge");
  const pace = make("span", { class: "lab-faint label-pace" });
  const unsaved = part("unsaved", "span");
  const bar = part("bar", "progress", { "aria-label": "Questions answered" });
  const title = make("div", { class: "lab-faint label-title" });
  const prompt = part("prompt");
  const answers = part("answers");
  const actions = group("actions", "Your verdict");
  const reasons = group("reasons", "Reasons, if you like");
  const list = part("list", "input", { "aria-label": "Reasons, with commas between them", hidden: true, onchange: () => (on.tags(list.value), hide(true)) });
  const hide = (hidden) => (list.hidden = hidden) || list.focus();
  const other = button("Other reasons …", () => hide(!list.hidden), { class: "lab-button label-small" });
  const edit = make("textarea", {
    rows: "3", "aria-label": "A better answer in your words", onkeydown: leave,
    placeholder: "The answer you would have liked: kept with your verdict. Esc or Ctrl+Enter leads back to the keys.",
  });
  const copies = make("span", { class: "lab-row" });
  const better = part("better", "div", { hidden: true });
  better.append(edit, make("div", { class: "lab-row lab-faint" }, "Begin with", copies));
  const typed = part("typed", "input", { "aria-label": "A prompt of your own", placeholder: "Or a prompt of your own, answered by the model …" });
  const ask = make("form", { class: "lab-row label-ask", hidden: true, onsubmit: submit }, typed, make("button", { class: "lab-button", type: "submit", text: "Ask" }));
  const help = part("keys");
  const news = make("div", { class: "lab-status label-news", role: "status" });
  const trouble = make("div", { class: "lab-warn label-trouble", role: "alert" });
  const spoke = spoken({ class: "lab-hidden" });
  const top = make("div", { class: "lab-row label-top" },
    make("label", { class: "lab-row lab-faint" }, "Your name", rater), modes, make("span", { class: "label-gap" }), pace, unsaved);
  root.append(top, bar, title, prompt, answers, actions, make("div", { class: "lab-row" }, reasons, other, list), better, ask, news, trouble, help, spoke);
  root.addEventListener("click", (event) => {
    const field = (node) => node && node.closest && node.closest("input, textarea, label");
    if (!field(event.target) && !field(document.activeElement) && !String(getSelection())) root.focus({ preventScroll: true });
  });

  function submit(event) {
    event.preventDefault();
    on.ask(typed.value);
    typed.value = "";
    root.focus();
  }
  function leave(event) {
    if (event.key !== "Escape" && !(event.key === "Enter" && (event.ctrlKey || event.metaKey))) return;
    event.preventDefault();
    event.stopPropagation(); // Ctrl+Enter would run the cell
    root.focus();
  }
  function write() {
    better.hidden = false;
    edit.focus();
  }
  // Keys that change what is drawn, and judge nothing.
  function own(key) {
    if (!question) return false;
    if (key === "e" || key === "E") write();
    else if (board && board.key(key)) return true;
    else if (/^[1-9]$/.test(key) && reasons.children[key - 1]) reasons.children[key - 1].click();
    else return false;
    return true;
  }

  const speak = (text) => (spoke.textContent = text);
  const choice = (text, pressed, onclick, more = {}) => button(text, onclick, { "aria-pressed": String(pressed), ...more });
  const keyed = (key, text, onclick) => button(text, onclick, { "data-key": key, title: `key ${key}` });
  const many = () => question.answers.length > 1;

  function card(answer, place) {
    const named = many() ? `Answer ${letter(place)}` : "The answer";
    return make("div", { class: "lab-card", role: "group", "aria-label": named }, many() ? make("div", { class: "label-letter", text: letter(place) }) : null, answerText(answer.text));
  }
  function copy(answer, place) {
    return button(many() ? letter(place) : "this answer", () => ((edit.value = answer.text), edit.focus()), { class: "lab-button label-small" });
  }
  // The next question, or null; `before` is spoken ahead of it.
  function show(next, before = "") {
    question = next;
    board = next && next.mode === "ranking" ? ranking(next.answers, speak) : null;
    root.dataset.item = next ? next.id : "";
    tags.clear();
    for (const tag of reasons.children) tag.setAttribute("aria-pressed", "false");
    edit.value = "";
    better.hidden = true;
    const turns = next ? next.turns : [];
    const asked = turns.length ? turns[turns.length - 1].content : "";
    title.textContent = next ? TITLES[next.mode] : "";
    prompt.replaceChildren(...turns.map((t) => make("p", { class: "lab-text" }, turns.length > 1 ? make("span", { class: "lab-faint", text: `${t.role}: ` }) : null, t.content)));
    answers.replaceChildren(...(board ? [board.node] : [make("div", { class: "lab-columns" }, ...(next ? next.answers.map(card) : []))]));
    actions.replaceChildren(...(next ? ACTIONS[next.mode].map((a) => keyed(a[0], a[1], () => on.judge(a))) : []), make("span", { class: "label-gap" }),
      keyed("u", "Undo", on.undo), ...(next ? [keyed("e", "Better answer …", write)] : []));
    copies.replaceChildren(...(next ? next.answers.map(copy) : []));
    help.textContent = next ? KEYS[next.mode] : "";
    speak(`${before}${next ? `${TITLES[next.mode]} ${asked}` : ""}`);
  }
  // What stands around the question: who, how far, how fast, and what is not safe yet.
  function around(state, unsavedCount, complaints, refused) {
    const { done, of, pace: rate, left, alike, twice } = state.progress;
    if (document.activeElement !== rater) rater.value = state.rater;
    const shown = state.modes.length > 1 ? state.modes : [];
    if (modes.dataset.now !== `${shown} ${state.mode}`) modes.replaceChildren(...shown.map((m) => choice(MODES[m], m === state.mode, () => on.mode(m))));
    modes.dataset.now = `${shown} ${state.mode}`;
    ask.hidden = !state.asks;
    rater.disabled = !state.renames;
    bar.max = Math.max(1, of);
    bar.value = done;
    const said = [`${done} of ${of}`, rate && `${Math.round(rate)} a minute`, rate && done < of && `${duration(left)} left`];
    if (twice) said.push(`you agree with yourself ${alike} of ${twice} times`);
    pace.textContent = said.filter(Boolean).join(" · ");
    root.dataset.unsaved = String(unsavedCount);
    unsaved.textContent = unsavedCount ? `${unsavedCount} not yet saved` : "all saved";
    if (!question) title.textContent = done >= of ? "Everything here is judged. Thank you!" : "The next questions are on their way …";
    if (trouble.dataset.now === complaints.join()) return; // an alert is read out whenever it changes
    trouble.dataset.now = complaints.join();
    trouble.replaceChildren(...complaints.map((text) => make("div", { text })), ...(refused ? [button("Throw away what was refused", on.discard)] : []));
  }
  const tell = (text, failed = false) => {
    news.textContent = text;
    news.classList.toggle("lab-warn", failed);
  };
  function tagged(names) {
    const flip = (name, chip) => {
      if (!tags.delete(name)) tags.add(name);
      chip.setAttribute("aria-pressed", String(tags.has(name)));
    };
    tags.clear();
    reasons.replaceChildren(...names.slice(0, 20).map((name) => choice(name, false, (e) => flip(name, e.currentTarget), { class: "lab-button label-small" })));
    list.value = names.join(", ");
  }
  return { root, show, around, tagged, tell, speak, given: () => ({ reasons: [...tags], edit: edit.value }), ranks: () => board.ranks() };
}
