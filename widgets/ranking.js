// Putting K answers in order, best first: drag a card by its grip, or move it with keys; "=" gives it the rank of the one above.

// `speak` tells a screen reader what happened. Returns { node, key, ranks }: key(k) is whether it wanted the key, and
// ranks() holds the rank of each place, 1 best.
function ranking(answers, speak) {
  const order = answers.map((_, place) => place);
  const tied = new Set(); // places that share the rank of the card above them
  let at = 0;
  let held = false;

  const name = (place) => `Answer ${letter(place)}`;
  const cards = answers.map((answer, place) => {
    const step = (by) => () => (point(place), move(by));
    const small = (text, label, onclick) => button(text, onclick, { class: "lab-button label-small", "aria-label": label, title: label });
    const parts = {
      rank: make("span", { class: "label-rank" }),
      tie: small("=", `${name(place)}: as good as the one above`, () => (point(place), tie())),
    };
    const grip = make("span", { class: "label-grip", "aria-hidden": "true", text: "⠿", title: "drag", onpointerdown: (e) => drag(e, place) });
    parts.node = make("li", { class: "lab-card label-ranked", onclick: () => point(place) },
      grip, parts.rank, answerText(answer.text, `${letter(place)} `),
      make("span", { class: "label-moves" }, small("↑", `${name(place)} up`, step(-1)), small("↓", `${name(place)} down`, step(1)), parts.tie));
    return parts;
  });
  const list = make("ol", { class: "label-ranking", "aria-label": "The answers, best first" });

  const ranks = () => {
    const found = [];
    let rank = 0;
    order.forEach((place, i) => (found[place] = i && tied.has(place) ? rank : ++rank));
    return found;
  };
  const draw = () => {
    const now = ranks();
    order.forEach((place, i) => {
      const { node, rank, tie: tieButton } = cards[place];
      if (list.children[i] !== node) list.insertBefore(node, list.children[i] || null);
      rank.textContent = String(now[place]);
      node.toggleAttribute("data-tied", i > 0 && tied.has(place));
      node.toggleAttribute("data-held", held && i === at);
      node.setAttribute("aria-current", i === at ? "true" : "false");
      tieButton.setAttribute("aria-pressed", String(i > 0 && tied.has(place)));
      tieButton.disabled = i === 0;
    });
  };
  const where = () => `${name(order[at])}, place ${at + 1} of ${order.length}`;
  const point = (place) => ((at = order.indexOf(place)), draw());
  const put = (to) => {
    const goal = Math.max(0, Math.min(order.length - 1, to));
    const [place] = order.splice(at, 1);
    order.splice(goal, 0, place);
    if (goal !== at) tied.delete(place);
    tied.delete(order[0]);
    at = goal;
    draw();
    speak(where());
  };
  const move = (by) => put(at + by);
  const tie = () => {
    const place = order[at];
    if (at && !tied.delete(place)) tied.add(place);
    draw();
    speak(at ? `${name(place)} ${tied.has(place) ? "is as good as the one above" : "is worse than the one above"}` : "There is nothing above.");
  };
  const drag = (event, place) => {
    event.preventDefault(); // no selection of text on the way
    point(place);
    const follow = (e) => {
      const goal = order.filter((p) => p !== place && middle(cards[p].node) < e.clientY).length;
      if (goal !== at) put(goal);
    };
    const done = () => {
      held = false;
      draw();
      for (const [kind, f] of Object.entries(listeners)) window.removeEventListener(kind, f);
    };
    const listeners = { pointermove: follow, pointerup: done, pointercancel: done };
    for (const [kind, f] of Object.entries(listeners)) window.addEventListener(kind, f);
    held = true;
    draw();
  };
  const key = (k) => {
    const by = { ArrowUp: -1, ArrowDown: 1 }[k];
    if (by && held) move(by);
    else if (by) (at = Math.max(0, Math.min(order.length - 1, at + by))), draw(), speak(where());
    else if (k === " ") (held = !held), draw(), speak(`${name(order[at])} ${held ? "picked up" : "put down"}, place ${at + 1}`);
    else if (k === "=") tie();
    else if (/^[1-9]$/.test(k) && +k <= order.length) put(+k - 1);
    else return false;
    return true;
  };
  draw();
  return { node: list, key, ranks };
}

const letter = (place) => String.fromCharCode(65 + place);

const middle = (node) => {
  const box = node.getBoundingClientRect();
  return box.top + box.height / 2;
};

// The words of an answer, as text and nothing else; `before` is read out ahead of them.
const answerText = (text, before = "") =>
  make("p", { class: "lab-text" }, make("b", { class: "label-letter", text: before }), text.trim() ? text : make("i", { class: "lab-faint", text: "(an empty answer)" }));
