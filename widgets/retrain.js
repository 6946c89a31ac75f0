// Retrain and look: what to vote for, what there is to learn from, a button, and before and after side by side.

// Buttons of which one is pressed. `fill` takes [[key, words], ...]; those that are there are kept, so that focus stays.
function oneOf(label, chosen) {
  const node = make("div", { class: "lab-row", role: "group", "aria-label": label }, make("span", { class: "lab-faint loop-label", text: label }));
  return {
    node,
    fill(rows, value, disabled = false) {
      const made = [...node.querySelectorAll("button")];
      if (made.map((b) => b.dataset.key).join("\n") !== rows.map(([key]) => key).join("\n")) {
        made.forEach((b) => b.remove());
        node.append(...rows.map(([key, text]) => button(text, () => chosen(key), { class: "lab-button loop-chip", "data-key": key })));
      }
      for (const b of node.querySelectorAll("button")) {
        b.setAttribute("aria-pressed", b.dataset.key === value);
        b.disabled = disabled;
      }
    },
  };
}

// A table of rows {measure, ...}; a row that is `clear` stands out, and says so to a screen reader.
function figures(caption, heads, rows) {
  const cell = (row, key, first) =>
    first
      ? make("th", { scope: "row", text: row[key] })
      : make("td", { text: String(row[key]) }, row.clear && key === "difference" ? make("span", { class: "lab-hidden", text: " (more than chance)" }) : null);
  return make("table", { class: "loop-table" }, make("caption", { text: caption }),
    make("thead", {}, make("tr", {}, ...heads.map(([, text]) => make("th", { scope: "col", text })))),
    make("tbody", {}, ...rows.map((row) => make("tr", { class: row.clear ? "loop-clear" : undefined }, ...heads.map(([key], i) => cell(row, key, i === 0))))));
}

// Words as segments [op, text]: those that only this side has are marked, those that only the other has are left out.
function sided(segments, tag) {
  const seen = segments.filter(([op]) => op !== "gone").flatMap(([op, text]) => {
    const [, before, inner, after] = /^(\s*)([\s\S]*?)(\s*)$/.exec(text);
    return op === "new" && inner ? [before, make(tag, { text: inner }), after] : [text];
  });
  return seen.length ? seen : [make("em", { class: "lab-faint", text: "(an empty answer)" })];
}

function shown(result) {
  const side = (name, segments, tag) =>
    make("div", { class: "lab-card" }, make("div", { class: "lab-faint", text: name }), make("div", { class: "lab-text" }, ...sided(segments, tag)));
  return [
    make("h3", { class: "loop-title", text: result.title, tabindex: "-1" }),
    make("p", { class: "lab-text", text: `${result.said} ${result.wins}`.replaceAll(" %", "\u00a0%") }),
    ...result.examples.map((e) =>
      make("article", { class: "loop-example", "aria-label": e.prompt }, make("strong", { class: "lab-text", text: e.prompt }),
        make("div", { class: "lab-columns" }, side("before", e.before, "del"), side("after", e.after, "ins")))),
    figures("On all validation prompts, with 95 % intervals", [["measure", "measure"], ["before", "before"], ["after", "after"], ["difference", "difference"]], result.rows),
    figures("Held-out pairs that are ordered as they were voted", [["judge", "judge"], ["on", "on"], ["n", "pairs"], ["before", "before"], ["after", "after"]], result.held_out),
    make("p", { class: "lab-faint", text: `Kept as ${result.runs.join(" and ")}. They stand on no ladder; the table of runs has them.` }),
  ];
}

// "24 pairs and 3 thumbs to train on, 6 pairs kept out"
function stock(counts) {
  const some = [["pairs", "pair", "pairs"], ["thumbs", "thumb", "thumbs"], ["edits", "answer of your own", "answers of your own"]]
    .filter(([key]) => counts[key])
    .map(([key, one, many]) => `${counts[key]} ${counts[key] === 1 ? one : many}`);
  if (!some.length) return "No vote yet that could be learned from.";
  return `${some.join(", ")} to train on; ${counts.held_out} ${counts.held_out === 1 ? "pair" : "pairs"} kept out, to see whether it understood.`;
}

function render({ model, el }) {
  let [now, known, asked, refused] = [null, "", false, ""]; // `refused`: what there was when a retraining was refused
  const root = frame(el, "Retrain on your votes", (key) => key === "r" && !go.hidden && (go.click(), true));
  root.classList.add("loop");
  const who = make("span", { class: "lab-faint" });
  const tasks = oneOf("Vote by", (name) => say("exercise", { name }));
  const rule = make("p", { class: "lab-text" });
  const begin = button("Judge the pairs below", () => say("begin"));
  const task = make("div", { class: "lab-card loop-task", role: "group", "aria-label": "Exercise" }, rule, begin);
  const methods = oneOf("Method", (method) => say("choose", { method }));
  const mixes = oneOf("Votes", (mix) => say("choose", { mix }));
  const stands = make("div", { class: "lab-text loop-stands" });
  const go = button("Retrain and look", start, { class: "lab-button lab-main", title: "r" });
  const stop = button("Stop", () => (root.focus(), (stop.disabled = say("stop"))), { title: "Give it up; nothing of it is kept" });
  const bar = make("progress", { max: 1, value: 0, "aria-label": "share of the retraining that is done" });
  const where = make("span", { class: "lab-faint" });
  const status = spoken();
  const result = make("section", { "aria-label": "Before and after" });
  root.append(make("div", { class: "lab-row" }, make("strong", { class: "loop-head", text: "Retrain on your votes" }), who),
    tasks.node, task, stands, methods.node, mixes.node, make("div", { class: "lab-row loop-go" }, go, stop, bar, where), status, result);

  function start() {
    asked = say("start");
    tell(asked ? "Getting ready …" : "The kernel does not answer.");
    root.focus(); // the button goes away, and with it the keys would go to JupyterLab
    paint();
  }

  const basis = () => JSON.stringify([now?.counts, now?.method, now?.mix, now?.exercise]);

  function tell(text, bad = false) {
    status.textContent = text;
    status.classList.toggle("lab-warn", bad);
  }

  function paint() {
    if (!now) return;
    const going = now.state === "running" || now.state === "stopping";
    const busy = going || asked;
    const found = now.exercises.find((e) => e.name === now.exercise);
    who.textContent = `as ${now.rater}`;
    tasks.fill([["", "your own judgement"], ...now.exercises.map((e) => [e.name, e.title])], now.exercise, busy);
    task.hidden = !found;
    rule.textContent = found ? `${found.rule} ${now.counts.votes} of ${found.of} are judged. These votes stand apart: nothing else learns from them. Afterwards it counts: ${found.measure}.` : "";
    stands.textContent = stock(now.counts);
    methods.fill(now.methods, now.method, busy);
    mixes.fill(now.mixes, now.mix, busy);
    go.hidden = busy;
    stop.hidden = bar.hidden = !busy;
    stop.disabled &&= busy;
    bar.value = going ? now.share : 0;
    if (going && now.doing && status.textContent !== now.doing) tell(now.doing);
    where.textContent = going && now.left ? `about ${duration(now.left)} left` : "";
    const key = JSON.stringify(now.result);
    if (key === known) return;
    known = key;
    result.replaceChildren(...(now.result ? shown(now.result) : []));
  }

  function news(all) {
    const before = now;
    now = { ...now, ...all };
    asked &&= now.state === "idle" || (before && before.state === now.state && now.state !== "running");
    if (refused && refused !== basis()) {
      refused = "";
      tell("");
    }
    if (before && before.state !== now.state) {
      tell({ running: "Getting ready …", finished: `Done. ${now.result ? now.result.title : ""}` }[now.state] ?? now.said, now.state === "failed");
      if (now.state === "finished") setTimeout(() => root.isConnected && result.querySelector("h3")?.focus({ preventScroll: true }));
    }
    paint();
  }

  const [say, leave] = talk(model, {
    snapshot: news,
    news,
    error: ({ text }) => ((asked = false), (refused = basis()), tell(text, true), paint()),
  });
  root.addEventListener("focusin", (event) => root.contains(event.relatedTarget) || say("look")); // votes may have come meanwhile
  say("ready");
  return leave;
}
export default { render };
