// What every front end shares. Each view's module is this file followed by its own, which ends in `export default { render }`.
// Text from a model or a person only ever enters the page as text: `make` sets textContent, nothing here sets innerHTML.

const uid = () =>
  globalThis.crypto && crypto.randomUUID
    ? crypto.randomUUID()
    : Array.from({ length: 32 }, () => Math.floor(Math.random() * 16).toString(16)).join("");

// make("button", { class: "lab-button", text: "Undo", title: "u", onclick: f, "aria-pressed": "false" }, child, ...)
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "text") node.textContent = value;
    else if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

const button = (text, onclick, more = {}) => make("button", { type: "button", class: "lab-button", text, onclick, ...more });

// A frame that keeps every plain key to itself: JupyterLab's command mode would take "a" as a new cell, "d d" as delete.
// `pressed(key, event)` hears keys that no text field and no button wanted; Ctrl, Meta and Alt go on to JupyterLab.
function frame(el, label, pressed = () => false) {
  const root = make("div", { class: "lab-view", tabindex: "0", role: "group", "aria-label": label });
  root.setAttribute("data-lm-suppress-shortcuts", "true");
  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    event.stopPropagation();
    if (event.isComposing || event.target.closest("input, textarea, select")) return;
    if (event.target.closest("button, a, summary") && (event.key === "Enter" || event.key === " ")) return;
    if (event.key === "Tab") return;
    if (pressed(event.key, event)) event.preventDefault();
  });
  el.append(root);
  return root;
}

// Messages to and from Python. `heard` maps a kind to a function; `snapshot` arrives after `ready`. Returns [say, leave].
function talk(model, heard) {
  const say = (kind, content = {}) => {
    try {
      model.send({ kind, ...content });
      return true;
    } catch {
      return false; // the kernel is gone; what must not be lost lies in an outbox
    }
  };
  const listen = (content) => {
    const handler = content && heard[content.kind];
    if (handler) handler(content);
  };
  model.on("msg:custom", listen);
  return [say, () => model.off("msg:custom", listen)];
}

// Letters that wait in the browser until Python says that they are safe. Kept in localStorage under a name, so that a
// reload, a cut connection or a dead kernel loses none; where that is refused (private mode), in memory.
function outbox(name) {
  const key = `labkit:${name}`;
  let memory = null;
  const read = () => {
    if (memory) return memory;
    try {
      return JSON.parse(localStorage.getItem(key) || "{}");
    } catch {
      return (memory = {});
    }
  };
  const write = (letters) => {
    if (memory) return void (memory = letters);
    try {
      localStorage.setItem(key, JSON.stringify(letters));
    } catch {
      memory = letters;
    }
  };
  return {
    all: () => Object.values(read()),
    put: (letter) => write({ ...read(), [letter.id]: letter }),
    drop: (ids) => write(Object.fromEntries(Object.entries(read()).filter(([id]) => !ids.includes(id)))),
    kept: () => memory === null, // false: a reload would lose what waits
  };
}

// One line that a screen reader speaks when it changes.
const spoken = (more = {}) => make("div", { class: "lab-status", role: "status", "aria-live": "polite", ...more });

const duration = (seconds) =>
  seconds < 90 ? `${Math.round(seconds)} s` : `${Math.floor(seconds / 60)} min ${String(Math.round(seconds % 60)).padStart(2, "0")} s`;
