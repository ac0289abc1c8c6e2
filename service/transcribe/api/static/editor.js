// A text that is changed in its place: Enter saves, Escape leaves it as it was, and so to go elsewhere saves too.

// Puts a field in the place of `element`; `many` for more than a line. `save` gets the new text and answers with the
// element that shows it; as long as it fails, the field stays, so that nothing that was written is lost.
export function edit(element, { value, label, longest, many, save }) {
  const field = document.createElement(many ? "textarea" : "input");
  Object.assign(field, { value, maxLength: longest, className: "editor" });
  field.setAttribute("aria-label", label);
  field.setAttribute("aria-describedby", "editor-hint");
  let busy = false;

  function close(shown, focused) {
    busy = true; // a field that is removed loses the focus
    field.remove();
    element.hidden = false;
    if (focused && document.activeElement === document.body) shown.focus();
  }

  async function done() {
    if (busy) return;
    const text = field.value.trim();
    const focused = document.activeElement === field;
    if (text === value) return close(element, focused);
    busy = true;
    try {
      close(await save(text), focused);
    } catch {
      busy = false; // `save` has said why
    }
  }

  field.addEventListener("blur", done);
  field.addEventListener("keydown", (event) => {
    event.stopPropagation(); // not for the player
    if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
    event.preventDefault();
    if (event.key === "Enter") done();
    else if (!busy) close(element, true);
  });
  element.before(field);
  element.hidden = true;
  field.focus();
  field.setSelectionRange(many ? value.length : 0, value.length);
}
