// A name before anything else. The browser offers the name that was typed last, and after a reload goes on under it by itself.

function render({ model, el }) {
  const LAST = "labkit:name"; // kept by the browser for the next visit
  const NOW = "labkit:name/now"; // kept by this tab: a reload is no new person
  let asked = false;
  let waiting = 0;

  const root = frame(el, "Who are you?");
  const [say, leave] = talk(model, { snapshot, error: ({ text }) => tell(text) });
  const name = make("input", { id: `name-${uid()}`, maxlength: "60", autocomplete: "off", spellcheck: "false" });
  const news = make("div", { class: "lab-status lab-warn", role: "alert" });
  const form = make(
    "form", { class: "lab-row", onsubmit: enter },
    make("label", { for: name.id, text: "Your name" }), name,
    make("button", { type: "submit", class: "lab-button lab-main", text: "Start" }),
  );
  const why = make("p", { class: "lab-faint", text: "Your votes are kept under this name; a made-up one will do. It is no password." });
  const who = make("strong", {});
  const header = make("div", { class: "lab-row" }, make("span", {}, "You judge as ", who), button("Another name", another));
  root.append(form, why, header, news);

  function snapshot(m) {
    root.classList.toggle("name-given", Boolean(m.name));
    who.textContent = m.name;
    form.hidden = why.hidden = Boolean(m.name);
    header.hidden = !m.name;
    tell("");
    if (m.name) {
      keep(localStorage, LAST, m.name);
      keep(sessionStorage, NOW, m.name);
      return handOver();
    }
    const now = read(sessionStorage, NOW);
    if (now && !asked) {
      asked = true;
      return say("name", { name: now });
    }
    name.value = name.value || read(localStorage, LAST);
    name.focus();
    name.select();
  }
  function enter(event) {
    event.preventDefault();
    if (!name.value.trim()) return tell("Type a name first: a made-up one will do.");
    say("name", { name: name.value });
  }
  // The view below takes the keys as soon as it is there, unless the person has gone elsewhere meanwhile.
  function handOver(patience = 50) {
    const next = [...document.querySelectorAll(".lab-view")].find((view) => view !== root);
    if (next) return root.contains(document.activeElement) || document.activeElement === document.body ? next.focus() : undefined;
    if (patience) waiting = setTimeout(handOver, 100, patience - 1);
  }
  function another() {
    keep(sessionStorage, NOW, "");
    name.value = "";
    say("leave");
  }
  const tell = (text) => (news.textContent = text);
  say("ready");
  return () => {
    clearTimeout(waiting);
    leave();
  };
}

function keep(storage, key, value) {
  try {
    storage.setItem(key, value);
  } catch {
    // it will be asked again
  }
}

function read(storage, key) {
  try {
    return storage.getItem(key) || "";
  } catch {
    return "";
  }
}

export default { render };
