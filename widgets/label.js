// The labeller. Python sends questions in advance and the page moves on by itself; each label waits in an outbox until Python
// says that the store has it. What is open is read from that outbox, so a reload forgets nothing and asks nothing twice.

function render({ model, el }) {
  let state = null; // the newest snapshot, kept up to date by what follows it
  let box = null; // labels and undos that are not yet saved
  let head = null; // the question on the screen: it stays there until it is answered, whatever arrives
  let held = false; // a rater or mode is about to change: a key pressed now would belong to neither
  let returned = []; // taken back here: asked again before all others
  let since = 0;
  let flying = false; // whether a message is on its way that nobody has answered
  let sent = 0;
  let asked = 0;
  let patience = 2000; // milliseconds until what was not answered goes again
  const known = new Map();
  const refused = new Map();

  const face = labelFace(el, { judge, undo, key, rater: (name) => hold("rater", { name }), mode: (mode) => hold("mode", { mode }), discard, tags: retag, ask: (text) => say("ask", { text }) });
  const [say, leave] = talk(model, { snapshot, saved, told: (m) => face.tell(m.text, m.failed), error: (m) => face.tell(m.text, true) });

  // ---- what Python says
  function snapshot(m) {
    const first = !state;
    if (first || m.rater !== state.rater || m.mode !== state.mode) {
      known.clear();
      returned = [];
      face.show(null);
    }
    state = m;
    held = false;
    box = outbox(`label/${m.name}`);
    learn(m);
    if (first) face.tagged(recall("reasons", m.reasons));
    const before = first && m.renames && recall("rater", {});
    if (before && before.given === m.given && before.name !== m.rater) return hold("rater", { name: before.name }); // after a restart
    if (!first) keep("rater", { given: m.given, name: m.rater });
    draw();
    if (!flying) send();
  }
  function saved(m) {
    if (!state) return;
    box.drop(m.ids);
    for (const id of m.ids) refused.delete(id);
    for (const { id, text } of m.refused) refused.set(id, text);
    flying = false;
    patience = 2000;
    if (box.all().some((l) => !refused.has(l.id))) send();
    if (m.progress.rater === state.rater && m.progress.mode === state.mode) learn(m);
    draw();
  }
  function learn({ items, order, recent, progress }) {
    for (const question of items) known.set(question.id, question);
    Object.assign(state, { order, recent, progress });
  }

  // ---- the outbox
  const waiting = (kind) => box.all().filter((l) => l.kind === kind && l.rater === state.rater);
  const undone = () => new Set(waiting("undo").map((l) => l.vote));
  const standing = (back = undone()) => waiting("label").filter((l) => !back.has(l.id));
  function open() {
    if (held) return [];
    const labelled = new Set(standing().map((l) => l.item));
    return [...new Set([...returned, ...state.order])].filter((id) => known.has(id) && !labelled.has(id));
  }
  function post(letter) {
    box.put(letter);
    if (!flying) send();
  }
  // Each message holds all that waits, in its order, and the next one goes when this is answered: so none can overtake another.
  function send() {
    const letters = box.all().slice(0, 100);
    sent = Date.now();
    flying = letters.length > 0;
    if (flying) say("letters", { letters });
  }
  // A message that is not answered goes again, ever more seldom; so does what was refused, for its reason may have passed.
  function remind() {
    if (!state) return;
    const now = Date.now();
    if (!head && state.order.length && now - asked > 3000) (asked = now), say("ready"); // something was missed
    if (!box.all().length || now - sent < (flying ? patience : 5000)) return;
    if (flying) patience = Math.min(patience * 1.5, 30000);
    send();
    draw();
  }
  function discard() {
    box.drop([...refused.keys()]);
    refused.clear();
    draw();
  }

  // ---- what the person does
  function judge([name, words, ranks, flag = ""]) {
    const question = head && known.get(head);
    if (!question) return face.speak("There is nothing to judge just now.");
    const places = ranks === "same" ? question.answers.map(() => 1) : ranks || face.ranks();
    returned = returned.filter((id) => id !== head);
    post({
      kind: "label", id: uid(), item: head, rater: state.rater, shown: question.answers.map((a) => a.key), ranks: places, flag,
      seconds: (performance.now() - since) / 1000, time: new Date().toISOString(), whole: question.whole, ...face.given(),
    });
    head = null;
    face.tell("");
    draw(`${words}. `);
  }
  function undo() {
    if (!state) return;
    const back = undone();
    const here = standing(back).filter((l) => known.has(l.item)).pop();
    const [vote, item] = here ? [here.id, here.item] : state.recent.find(([id]) => !back.has(id)) || [];
    if (!vote) return face.tell("There is nothing to take back.");
    returned = [item, ...returned.filter((id) => id !== item)];
    post({ kind: "undo", id: `undo-${vote}`, vote, rater: state.rater });
    head = known.has(item) ? item : null;
    face.tell("Taken back: judge it anew.");
    draw("Taken back. ");
  }
  function key(name) {
    const mode = head ? known.get(head).mode : "pair";
    const plain = name.length === 1 ? name.toLowerCase() : name;
    if (plain === "u") return undo(), true;
    const action = ACTIONS[mode].find((a) => a[0] === (ALIASES[mode][name] || plain));
    if (action) judge(action);
    return Boolean(action);
  }
  function hold(kind, content) {
    held = true;
    draw();
    say(kind, content);
  }
  function retag(text) {
    const names = [...new Set(text.split(",").map((t) => t.trim().slice(0, 40)).filter(Boolean))];
    keep("reasons", names);
    face.tagged(names);
  }

  // ---- small things that this browser remembers for this session
  function keep(what, value) {
    try {
      localStorage.setItem(`labkit:${what}/${state.name}`, JSON.stringify(value));
    } catch {
      // it will be asked again
    }
  }
  function recall(what, otherwise) {
    try {
      return JSON.parse(localStorage.getItem(`labkit:${what}/${state.name}`)) || otherwise;
    } catch {
      return otherwise;
    }
  }

  function draw(before = "") {
    const queue = open();
    if (!queue.includes(head)) head = queue[0] || null;
    if (face.root.dataset.item !== (head || "")) {
      since = performance.now();
      face.show(known.get(head) || null, before);
    }
    const complaints = [...new Set(refused.values())];
    if (patience > 4000) complaints.push("The kernel does not answer. What is not yet saved waits in this browser: run the cell again, or wait.");
    if (!box.kept() && box.all().length) complaints.push("This browser keeps nothing: do not reload before all is saved.");
    face.around(state, box.all().length, complaints, refused.size > 0);
  }
  const timer = setInterval(remind, 1000);
  say("ready");
  return () => {
    clearInterval(timer);
    leave();
  };
}

export default { render };
