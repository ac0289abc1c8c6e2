// Who speaks: a button for each, with which they are renamed in their place.

import { edit } from "./editor.js";
import { say } from "./tongue.js";

const LONGEST = 100; // characters of a name

export class Speakers {
  // `row` has a label; the buttons come behind it. `rename` sends a new name to the server.
  constructor(row, transcript, rename) {
    this.row = row;
    this.transcript = transcript;
    this.rename = rename;
    this.buttons = new Map();
  }

  // A button for everybody who speaks in the transcript now.
  show() {
    this.buttons = new Map(this.transcript.speakers.map(({ by }) => [by, this.made(by)]));
    this.row.replaceChildren(this.row.firstElementChild, ...this.buttons.values());
    this.row.hidden = !this.buttons.size;
    this.retell();
  }

  // The labels, in the page's language. The buttons stay, as a field may be open in the place of one.
  retell() {
    for (const { by, speaker } of this.transcript.speakers) {
      const button = this.buttons.get(by);
      if (!button) continue;
      button.textContent = speaker;
      button.setAttribute("aria-label", say("Rename {0}", speaker));
    }
  }

  made(by) {
    const button = document.createElement("button");
    button.type = "button";
    button.addEventListener("click", () => {
      const value = button.textContent;
      edit(button, { value, label: say("New name for {0}", value), longest: LONGEST, save: (name) => this.save(by, name) });
    });
    return button;
  }

  async save(by, name) {
    await this.rename(by, name);
    this.transcript.rename(by, name || by);
    this.retell();
    return this.buttons.get(by);
  }
}
