// A training while it goes on: how far it is, one curve at a time, what the model answers on the way, and two ways to end it.
const NS = "http://www.w3.org/2000/svg";
const HEIGHT = 200;
const EDGE = { left: 48, right: 12, top: 10, bottom: 22 };
const PLAIN = ["step", "of", "seconds"];

function shape(tag, attributes, text = "") {
  const node = document.createElementNS(NS, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
}

function figure(x) {
  const small = x !== 0 && Math.abs(x) < 1e-3;
  return (small || Math.abs(x) >= 1e5 ? x.toExponential(1) : String(Number(x.toPrecision(3)))).replace("-", "−");
}

// Round numbers from just below low to just above high, about four steps apart.
function ticks(low, high) {
  const raw = (high - low || 1) / 4;
  const size = 10 ** Math.floor(Math.log10(raw));
  const step = size * [1, 2, 2.5, 5, 10].find((m) => m * size >= raw * 0.999);
  const [first, last] = [Math.floor(low / step + 1e-9), Math.ceil(high / step - 1e-9)];
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
}

// A running average, a bell about a twentieth of the values wide.
function smooth(values) {
  const width = Math.max(1, values.length / 20);
  const reach = width > 1 ? Math.ceil(1.5 * width) : 0;
  return values.map((_, i) => {
    let [sum, weights] = [0, 0];
    for (let j = Math.max(0, i - reach); j <= Math.min(values.length - 1, i + reach); j++) {
      const weight = Math.exp(-0.5 * ((j - i) / (width / 2)) ** 2);
      sum += weight * values[j];
      weights += weight;
    }
    return sum / weights;
  });
}

// The curve as shapes: faint as logged, strong as an average, a mark at point `at`; and where each point stands across.
function curve(points, width, at) {
  const ys = points.map((p) => p[1]);
  const steps = points.map((p) => p[0]);
  const up = ticks(Math.min(...ys), Math.max(...ys));
  const [right, bottom, end] = [width - EDGE.right, HEIGHT - EDGE.bottom, Math.max(steps.at(-1), 1)];
  const [low, high] = up.length > 1 ? [up[0], up.at(-1)] : [up[0] - 0.5, up[0] + 0.5];
  const x = (step) => EDGE.left + ((right - EDGE.left) * step) / end;
  const y = (value) => bottom - ((bottom - EDGE.top) * (value - low)) / (high - low);
  const path = (values) => values.map((v, i) => `${x(steps[i]).toFixed(1)},${y(v).toFixed(1)}`).join(" ");
  return [
    [
      ...up.map((t) => shape("line", { class: "train-grid", x1: EDGE.left, x2: right, y1: y(t), y2: y(t) })),
      ...up.map((t) => shape("text", { x: EDGE.left - 6, y: y(t) + 4, "text-anchor": "end" }, figure(t))),
      ...ticks(0, end)
        .filter((t) => Number.isInteger(t) && t <= end)
        .map((t) => shape("text", { x: x(t), y: HEIGHT - 6, "text-anchor": t === end ? "end" : "middle" }, String(t))),
      shape("polyline", { class: "train-raw", points: path(ys) }),
      shape("polyline", { class: "train-line", points: path(smooth(ys)) }),
      shape("circle", { class: "train-mark", cx: x(steps[at]), cy: y(ys[at]), r: 4 }),
    ],
    steps.map(x),
  ];
}

function render({ model, el }) {
  const now = { rows: [], samples: [], watch: [], told: 0, shown: 0, state: "", said: "", left: null };
  let [chosen, cursor, looked, places, waiting, asked] = [null, null, null, [], 0, false];

  const root = frame(el, "Training", (key) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[key];
    if (key === "Escape") cursor = null;
    else if (by && places.length) cursor = Math.max(0, Math.min(places.length - 1, (cursor ?? places.length - 1) + by));
    else return false;
    return later();
  });
  const title = make("strong", { class: "train-title" });
  const where = make("span", { class: "train-where" });
  const stop = button("Stop and keep", () => end("stop", stop), { title: "End after this step and keep what was learned" });
  const discard = button("Discard", () => end("discard", discard), { title: "Give up at once and keep nothing" });
  const bar = make("progress", { max: 1, value: 0, "aria-label": "steps done" });
  const tiles = make("div", { class: "lab-row train-tiles", role: "group", "aria-label": "Curve" });
  const svg = shape("svg", { class: "train-chart", role: "img", height: HEIGHT });
  const readout = make("div", { class: "lab-faint train-readout" });
  const slider = make("input", { type: "range", min: 0, value: 0, "aria-label": "Answers on the way, by step" });
  const when = make("span", { class: "lab-faint" });
  const cards = make("div", { class: "lab-columns" });
  const answers = make("section", { class: "train-answers", "aria-label": "Answers on the way" },
    make("div", { class: "lab-row" }, make("span", { text: "It answers" }), slider, when), cards);
  const status = spoken();
  const head = make("div", { class: "lab-row" }, title, where, discard, stop); // Stop keeps its place: a second click on it discards nothing
  root.append(head, bar, tiles, svg, readout, answers, status);

  slider.addEventListener("input", () => {
    looked = Number(slider.value) === now.samples.length - 1 ? null : Number(slider.value);
    later();
  });
  svg.addEventListener("pointermove", (event) => {
    const at = event.clientX - svg.getBoundingClientRect().left;
    cursor = places.reduce((best, x, i) => (Math.abs(x - at) < Math.abs(places[best] - at) ? i : best), 0);
    later();
  });
  svg.addEventListener("pointerleave", () => ((cursor = null), later()));

  function end(kind, pressed) {
    root.focus(); // a disabled button gives the focus, and with it the keys, to JupyterLab
    pressed.disabled = asked = say(kind);
    if (!asked) status.textContent = "The kernel does not answer.";
  }

  function later() {
    waiting ||= requestAnimationFrame(() => ((waiting = 0), paint()));
    return true;
  }

  function paint() {
    const last = now.rows.at(-1);
    const going = now.state === "running" || now.state === "stopping";
    title.textContent = now.title || "";
    const left = now.left ? `about ${duration(now.left)} left` : "";
    where.textContent = last ? [`step ${last.step} of ${last.of}`, left].filter(Boolean).join(" · ") : "";
    bar.value = last ? last.step / last.of : 0;
    bar.hidden = !going;
    stop.hidden = !going;
    stop.disabled = asked || now.state !== "running";
    discard.hidden = now.state !== "stopping";
    const quarters = last && now.state === "running" ? Math.floor((4 * last.step) / last.of) : 0; // spoken four times, not always
    const heard = now.said + (quarters ? ` ${quarters * 25} % of the steps are done.` : "");
    if (status.textContent !== heard) status.textContent = heard;
    paintCurve(last);
    paintAnswers();
  }

  function paintCurve(last) {
    const numbers = (row) => Object.keys(row).filter((k) => typeof row[k] === "number" && !PLAIN.includes(k));
    const keys = [...new Set(now.rows.flatMap(numbers))];
    const rank = (k) => (now.watch.indexOf(k) + 1 || 99);
    keys.sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));
    if (!keys.includes(chosen)) chosen = keys[0] ?? null;
    if (keys.join() !== [...tiles.children].map((t) => t.dataset.key).join()) {
      tiles.replaceChildren(...keys.map((key) => button("", () => ((chosen = key), later()), { "data-key": key })));
    }
    for (const tile of tiles.children) {
      const value = now.rows.findLast((row) => tile.dataset.key in row)[tile.dataset.key];
      tile.textContent = `${tile.dataset.key} ${figure(value)}`;
      tile.setAttribute("aria-pressed", tile.dataset.key === chosen);
    }
    svg.style.display = readout.style.display = chosen ? "" : "none";
    if (!chosen) return;
    const points = now.rows.filter((row) => chosen in row).map((row) => [row.step, row[chosen]]);
    const at = Math.min(cursor ?? points.length - 1, points.length - 1);
    const width = Math.max(300, svg.clientWidth);
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const [shapes, xs] = curve(points, width, at);
    places = xs;
    svg.replaceChildren(...shapes);
    const said = `${chosen} ${figure(points[at][1])} at step ${points[at][0]}`;
    readout.textContent = cursor === null ? `${said} · point at the curve, or ← →, to read it` : said;
    svg.setAttribute("aria-label", `curve of ${said} of ${last.of}`);
  }

  function paintAnswers() {
    answers.hidden = !now.samples.length;
    if (answers.hidden) return;
    const at = looked ?? now.samples.length - 1;
    slider.max = now.samples.length - 1;
    slider.value = at;
    slider.disabled = now.samples.length < 2;
    when.textContent = `at step ${now.samples[at].step}`;
    slider.setAttribute("aria-valuetext", when.textContent);
    cards.replaceChildren(...now.samples[at].answers.map(({ prompt, answer, gold }) =>
      make("div", { class: "lab-card" }, make("p", { class: "lab-text train-prompt", text: prompt }),
        make("p", { class: "lab-text", text: answer || "(an empty answer)" }),
        gold === null ? null : make("span", { class: "train-gold", text: `gold ${figure(gold)}` }))));
  }

  const [say, leave] = talk(model, {
    snapshot: (all) => (Object.assign(now, all), later()),
    rows: ({ rows, samples, from, first, ...rest }) => {
      if (from !== now.told || first !== now.shown) return say("ready"); // a message was lost
      Object.assign(now, rest, { rows: [...now.rows, ...rows], samples: [...now.samples, ...samples] });
      later();
    },
    error: ({ text }) => (status.textContent = text),
  });
  const watcher = new ResizeObserver(later);
  watcher.observe(root);
  paint();
  say("ready");
  return () => {
    leave();
    watcher.disconnect();
    cancelAnimationFrame(waiting);
  };
}
export default { render };
