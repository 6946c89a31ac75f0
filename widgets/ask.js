// Ctrl+Enter (or Cmd+Enter) in the box asks. The text travels with the message: it may be newer than what Python knows.
function render({ model, el }) {
  el.style.display = "none";
  let root = null;
  let frame = 0;
  let count = 0;
  const pressed = (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    const box = root.querySelector("textarea");
    event.preventDefault();
    event.stopPropagation();
    count += 1;
    model.send({ kind: "ask", text: box ? box.value : "", count });
  };
  const attach = () => {
    root = el.closest(".lab-ask");
    if (!root) {
      frame = requestAnimationFrame(attach); // not in the page yet
      return;
    }
    root.setAttribute("data-lm-suppress-shortcuts", "true"); // else JupyterLab would run the cell
    root.addEventListener("keydown", pressed, true); // on the way down: the box lets no key come up again
  };
  attach();
  return () => {
    cancelAnimationFrame(frame);
    if (root) root.removeEventListener("keydown", pressed, true);
  };
}
export default { render };
