// Answers side by side: who wrote each, its words with what differs marked, what is known of it, and a button to call it best.

// A button that cannot be used now but keeps its focus: a disabled one would hand the next key to JupyterLab.
const off = (node, yes) => node.setAttribute("aria-disabled", String(Boolean(yes)));
const isOff = (node) => node.getAttribute("aria-disabled") === "true";

// The options of a select, [[value, words], ...]; it is touched only where they changed, so that it stays open and focused.
function choices(select, rows, value) {
  const key = JSON.stringify(rows);
  if (select.dataset.rows !== key) {
    select.dataset.rows = key;
    select.replaceChildren(...rows.map(([v, text]) => make("option", { value: v, text })));
  }
  if (select.value !== value) select.value = value;
}
const labelled = (text, field) => make("label", { class: "cmp-field" }, make("span", { text }), field);

// The words of an answer in segments [op, words]; `marks` is "new", "gone" (what was dropped, too) or "none".
function words(parts, marks) {
  const tags = { new: marks === "none" ? "" : "ins", gone: marks === "gone" ? "del" : null, same: "" };
  return parts.flatMap(([op, text]) => {
    const tag = tags[op];
    if (tag === null) return [];
    const [, before, inner, after] = /^(\s*)([\s\S]*?)(\s*)$/.exec(text);
    return tag && inner ? [before, make(tag, { text: inner }), after] : [text];
  });
}

function answerCard(place, best) {
  const dot = make("span", { class: "cmp-dot", "aria-hidden": "true" });
  const [name, more, state] = [make("strong"), make("span", { class: "lab-faint" }), make("span", { class: "lab-faint cmp-state" })];
  const text = make("div", { class: "lab-text cmp-text" });
  const facts = make("ul", { class: "cmp-facts" });
  const vote = button("", () => isOff(vote) || best(place), { class: "lab-button cmp-best", "aria-pressed": "false" });
  const node = make("article", { class: "lab-card cmp-card" }, make("div", { class: "cmp-head" }, dot, name, more, state), text, facts, vote);
  let last = document.createTextNode("");
  return {
    node,
    head(model, key) {
      name.textContent = model.label;
      more.textContent = model.more || "";
      dot.style.background = model.colour || "transparent";
      dot.hidden = !model.colour;
      node.setAttribute("aria-label", model.label);
      vote.replaceChildren(key, make("kbd", { text: String(place + 1) }));
      vote.setAttribute("aria-label", `${model.label}: ${key}`);
    },
    // Words that are still growing.
    plain(said) {
      last = document.createTextNode(said);
      text.replaceChildren(last);
    },
    add: (said) => last.appendData(said),
    parts(segments, marks) {
      const seen = words(segments, marks);
      text.replaceChildren(...(seen.some((s) => typeof s !== "string" || s.trim()) ? seen : [make("em", { class: "lab-faint", text: "(an empty answer)" })]));
    },
    facts(rows) {
      facts.replaceChildren(...rows.map(([what, value, title]) => make("li", { title }, make("span", { text: what }), value ? ` ${value}` : null)));
    },
    state(said, bad = false) {
      state.textContent = said;
      state.classList.toggle("lab-warn", bad);
      node.setAttribute("aria-busy", String(["waiting", "loading the weights …", "writing …"].includes(said)));
    },
    fail(said) {
      text.replaceChildren(make("span", { class: "lab-warn", text: said }));
    },
    votes(can, chosen) {
      vote.hidden = can === null;
      off(vote, !can);
      vote.setAttribute("aria-pressed", String(Boolean(chosen)));
    },
  };
}

// A row of cards that is kept as long as their number is the same, so that focus stays where it is.
function cardRow(best) {
  const node = make("div", { class: "lab-columns cmp-columns" });
  let cards = [];
  return {
    node,
    get: (place) => cards[place],
    fit(count) {
      if (cards.length !== count) {
        cards = Array.from({ length: count }, (_, place) => answerCard(place, best));
        node.replaceChildren(...cards.map((c) => c.node));
      }
      return cards;
    },
  };
}

const said = { waiting: "waiting", loading: "loading the weights …", writing: "writing …", done: "", stopped: "stopped", failed: "failed" };

// The prompt above the cards: its turns, with who speaks where there is more than one.
function promptBox() {
  const node = make("div", { class: "cmp-prompt" });
  return {
    node,
    show(turns, kind) {
      const lines = turns.map((t) =>
        make("div", { class: "lab-text" }, turns.length > 1 ? make("span", { class: "lab-faint", text: `${t.role}: ` }) : null, make("strong", { text: t.content })),
      );
      node.replaceChildren(...lines, kind ? make("span", { class: "cmp-kind", text: kind }) : "");
    },
  };
}
