// One answer, each token coloured by what a stage changed: arrow keys go from token to token, digits choose the colour.
const SVG = "http://www.w3.org/2000/svg";
const [LESS, MORE, STRONGEST] = ["230,97,1", "43,123,203", 0.72]; // orange and blue, as in tokens.py

const number = (value, signed = false) => {
  const text = Math.abs(value).toFixed(2);
  return (Number(text) === 0 ? "" : value < 0 ? "−" : signed ? "+" : "") + text;
};
const percent = (p) => (p >= 0.0995 ? `${Math.round(100 * p)} %` : p >= 0.0005 ? `${(100 * p).toFixed(1)} %` : "< 0.1 %");
const visible = (text) => text.replace(/ /g, "·").replace(/\n/g, "↵").replace(/\t/g, "→") || "∅";
const paint = (value, most) => `rgba(${value < 0 ? LESS : MORE},${((STRONGEST * Math.abs(value)) / most).toFixed(3)})`;

// The score by prefix as a line. Returns it and a function that marks a token on it.
function strip(tokens) {
  const values = tokens.map((t) => t.reward);
  const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
  const [x, y] = [(i) => ((i + 0.5) / values.length) * 100, (v) => 38 - (34 * (v - low)) / (high - low || 1)];
  const draw = (tag, attributes, ...children) => {
    const node = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };
  const said = `The reward if the answer ended at each token: from ${number(values[0])} to ${number(values[values.length - 1])}`;
  const mark = draw("path", { class: "tok-at", d: "" });
  const curve = draw("path", { class: "tok-curve", d: values.map((v, i) => `${i ? "L" : "M"}${x(i)} ${y(v)}`).join("") });
  const line = draw("svg", { class: "tok-line", viewBox: "0 0 100 42", preserveAspectRatio: "none", role: "img", "aria-label": said },
    draw("path", { class: "tok-zero", d: `M0 ${y(0)}H100` }), curve, mark);
  const [name, ...ends] = ["reward by prefix", number(high), number(low)].map((text) => make("span", { text }));
  const scale = make("div", { class: "tok-ends", "aria-hidden": "true" }, ...ends);
  return [make("div", { class: "tok-strip lab-faint" }, name, scale, line), (i) => mark.setAttribute("d", `M${x(i)} 2V40`)];
}

// What is known of one token: the numbers under both models, and what else each of them might have written.
function panel(token, at, seen) {
  const cells = (name, ...texts) =>
    make("tr", {}, make("th", { scope: "row", text: name }), ...texts.map((text) => make("td", { text })));
  const table = make("table", { class: "tok-table" },
    make("tr", {}, make("td"), ...[seen.a, seen.b].map(({ label }) => make("th", { scope: "col", text: label }))),
    cells("log-probability", number(token.logp_a), number(token.logp_b)),
    cells("probability", percent(Math.exp(token.logp_a)), percent(Math.exp(token.logp_b))),
    cells("rank among all tokens", token.rank_a, token.rank_b),
    cells("entropy, nats", number(token.entropy_a), number(token.entropy_b)));
  const known = ["change", "kl", "advantage", "value", "reward"].filter((key) => key in token);
  const facts = known.map((key) =>
    make("span", {}, `${key === "kl" ? "KL" : key} `, make("b", { text: number(token[key], key === "change" || key === "advantage") })));
  const bars = (label, top, rank, logp) => {
    const item = ([text, p], own) => {
      const bar = make("span", { class: "tok-bar" }, make("span"));
      bar.firstChild.style.width = `${100 * p}%`;
      return make("li", { class: own ? "tok-own" : "" }, make("span", { class: "tok-word", text: visible(text) }), bar, percent(p));
    };
    const items = top.map((one, i) => item(one, i === rank - 1));
    if (rank > top.length) items.push(item([token.text, Math.exp(logp)], true));
    return make("div", {}, make("div", { class: "lab-faint", text: `${label} would write` }), make("ol", { class: "tok-top" }, ...items));
  };
  const part = token.whole ? ` a part of ${visible(token.whole)},` : "";
  const title = make("div", {}, make("code", { text: visible(token.text) }), `${part} token ${at + 1} of ${seen.tokens.length}`);
  return [make("div", {}, title, table, make("div", { class: "lab-row tok-facts" }, ...facts)),
    bars(seen.a.label, token.top_a, token.rank_a, token.logp_a), bars(seen.b.label, token.top_b, token.rank_b, token.logp_b)];
}

// The tokens as a list box; the chosen one is in the order of Tab. `tell(i)` shows a token's numbers.
function listed(tokens, kept, tell) {
  const choose = (i) => {
    kept.at = i;
    options.forEach((option, j) => {
      option.setAttribute("aria-selected", String(i === j));
      option.tabIndex = i === j ? 0 : -1;
    });
    tell(i);
  };
  const options = tokens.map((token, i) =>
    make("span", { class: `tok${token.mark ? " tok-mark" : ""}`, role: "option", tabindex: -1, text: token.text.replace(/\n/g, "↵\n") || "∅",
      onfocus: () => choose(i), onpointerenter: () => tell(i) })); // a click brings the focus
  const list = make("div", { class: "tok-text", role: "listbox", "aria-orientation": "horizontal", "aria-label": "The answer, token by token",
    onpointerleave: () => tell(kept.at) }, ...options);
  const pressed = (key) => {
    const i = { ArrowRight: kept.at + 1, ArrowLeft: kept.at - 1, Home: 0, End: tokens.length - 1 }[key];
    options[Math.max(0, Math.min(tokens.length - 1, i))]?.focus(); // another key: none
    return i !== undefined;
  };
  return [list, options, choose, pressed];
}

// Everything below the form, for one answer seen. Returns the part and what a plain key does in it.
function result({ seen, layers, sums, notes }, kept) {
  const { tokens } = seen;
  const about = make("div", { class: "tok-panel lab-card", role: "region", "aria-label": "The chosen token" });
  const legend = make("div", { class: "lab-row lab-status", role: "status", "aria-live": "polite" });
  const [line, point] = "reward" in tokens[0] ? strip(tokens) : [null, () => {}];
  const tell = (i) => {
    about.replaceChildren(...panel(tokens[i], i, seen));
    point(i);
  };
  const [list, options, choose, moved] = listed(tokens, kept, tell);
  const colour = (key) => {
    const { name, unit, less, more } = layers.find((layer) => layer.key === key);
    kept.layer = pick.value = key;
    const most = Math.max(0.1, ...tokens.map((t) => Math.abs(t[key])));
    options.forEach((option, i) => {
      option.style.backgroundColor = paint(tokens[i][key], most);
      option.setAttribute("aria-label", `${visible(tokens[i].text)} ${number(tokens[i][key], key === "change")}${unit}`);
    });
    const end = (sign, words) => {
      const swatch = make("span", { class: "tok-swatch" });
      swatch.style.backgroundImage = `linear-gradient(90deg, transparent, ${paint(sign, 1)})`;
      return make("span", { class: "tok-end" }, swatch, `to ${number(sign * most, true)}${unit}: ${words}`);
    };
    legend.replaceChildren(make("span", { class: "lab-hidden", text: name }), ...(less ? [end(-1, less)] : []), ...(more ? [end(1, more)] : []));
  };
  const pick = make("select", { onchange: () => colour(pick.value) }, ...layers.map((l, i) => make("option", { value: l.key, text: `${i + 1} ${l.name}` })));
  const part = make("div", { class: "tok-result" },
    make("div", { class: "lab-row" }, make("label", { class: "lab-row" }, "Colour by", pick), legend),
    make("p", { class: "lab-text lab-faint", text: seen.prompt }), list, line, about,
    make("div", { class: "tok-sums", text: sums }), ...notes.map((text) => make("div", { class: "lab-faint", text })));
  colour(layers.some(({ key }) => key === kept.layer) ? kept.layer : "change");
  choose(Math.min(kept.at, tokens.length - 1));
  const pressed = (key, event) => {
    if (/^[1-9]$/.test(key) && layers[key - 1]) return colour(layers[key - 1].key), true;
    return list.contains(event.target) && moved(key);
  };
  return [part, pressed];
}

// The prompt, the answer, the two models, and what is done with them, for a view that may look by itself.
function form(state, say) {
  const { asked, models } = state;
  const box = (rows, value) => make("textarea", { rows, text: value });
  const choice = (value) =>
    make("select", {}, ...models.map((m) => make("option", { value: m.name, text: m.label, selected: m.name === value })));
  const [text, answer, a, b] = [box(1, asked.text), box(2, asked.answer), choice(asked.a), choice(asked.b)];
  const seed = make("input", { type: "number", min: 0, max: 9999, value: 1 });
  let waits = false;
  const ask = (by = "") => !waits && say("look", { text: text.value, answer: answer.value, a: a.value, b: b.value, by, seed: seed.value });
  const buttons = [button("Look", () => ask(), { class: "lab-button lab-main", title: "or Ctrl+Enter" })];
  for (const by of state.writes ? [a, b] : []) {
    const writes = button("", () => ask(by.value) && seed.stepUp()); // pressed again, it writes another
    const name = () => (writes.textContent = `Let ${by.selectedOptions[0].textContent} write`);
    by.addEventListener("change", name);
    buttons.push(writes);
    name();
  }
  const named = (name, field, kind = "lab-row") => {
    field.id = uid();
    return make("div", { class: kind }, make("label", { for: field.id, text: name }), field);
  };
  const part = make("div", { class: "tok-form" }, named("Prompt", text, ""), named("Answer", answer, ""),
    make("div", { class: "lab-row" }, named("from", a), named("to", b), ...buttons, state.writes ? named("seed", seed) : null));
  part.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    event.stopPropagation(); // else JupyterLab would run the cell
    ask();
  });
  const busy = (is) => buttons.forEach((one) => one.setAttribute("aria-disabled", (waits = is))); // a disabled one would lose the focus
  return { part, ask, busy, filled: (asked) => (answer.value = asked.answer) };
}

function render({ model, el }) {
  const kept = { at: 0, layer: "change" };
  let [keys, above] = [() => false, null];
  const root = frame(el, "Microscope: what a stage changed, token by token", (key, event) => keys(key, event));
  const [status, below] = [spoken(), make("div")];
  root.append(status, below);
  const told = (text, bad = false) => {
    status.textContent = text;
    status.classList.toggle("lab-warn", bad);
    if (above) above.busy(Boolean(text) && !bad);
  };
  const shown = (content) => {
    const [part, pressed] = result(content, kept);
    keys = pressed;
    below.replaceChildren(part);
  };
  const [say, leave] = talk(model, {
    snapshot: (state) => {
      if (state.looks && !above) {
        above = form(state, say);
        root.prepend(above.part);
      }
      told(state.busy);
      if (state.seen) shown(state);
      else if (state.looks && !state.busy && state.asked.text && state.asked.answer) above.ask();
    },
    busy: ({ text }) => told(text),
    seen: (content) => {
      told("");
      above.filled(content.asked);
      shown(content);
    },
    error: ({ text, asked }) => {
      told(text, true);
      if (asked) above.filled(asked);
    },
  });
  say("ready");
  return leave;
}
export default { render };
