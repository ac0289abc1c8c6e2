// A text that is changed in its place. Enter saves, and so does leaving the field; Escape leaves the text as it was.

const opened = new Map(); // of each field that is open, what saves it, and what closes it

// Saves what is in open fields; false if something of it could not be saved, and its field is still there.
export async function settle() {
  while (opened.size) { // another may be opened meanwhile
    const saved = await Promise.all([...opened.keys()].map((done) => done()));
    if (!saved.every(Boolean)) return false;
  }
  return true;
}

// Closes open fields, whose text is gone.
export function discard() {
  for (const close of opened.values()) close();
}

// Puts a field in the place of `element`; `many` for more than a line. `save` gets the new text and answers with the
// element that shows it; as long as it fails, the field stays, so that nothing that was written is lost.
export function edit(element, { value, label, longest, many, save }) {
  const field = document.createElement(many ? "textarea" : "input");
  Object.assign(field, { value, maxLength: longest, className: "editor" });
  field.setAttribute("aria-label", label);
  field.setAttribute("aria-describedby", "editor-hint");
  let saving = null;
  let closed = false;

  function close(shown, focused) {
    closed = true; // a field that is removed loses the focus
    opened.delete(done);
    field.remove();
    element.hidden = false;
    if (focused && document.activeElement === document.body) shown.focus();
    return true;
  }

  async function saved() {
    const text = field.value.trim();
    const focused = document.activeElement === field;
    if (text === value) return close(element, focused);
    try {
      return close(await save(text), focused);
    } catch {
      return false; // `save` has said why
    } finally {
      saving = null;
    }
  }

  async function done() {
    if (!closed) saving ??= saved();
    return closed || saving;
  }

  opened.set(done, () => close(element));
  field.addEventListener("blur", done);
  field.addEventListener("keydown", (event) => {
    event.stopPropagation(); // not for the player
    if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
    event.preventDefault();
    if (event.key === "Enter") done();
    else if (!saving) close(element, true);
  });
  element.before(field);
  element.hidden = true;
  field.focus();
  field.setSelectionRange(many ? value.length : 0, value.length);
}
