// The lines of the transcript: each is a button that plays its part of the recording, with its doubtful words. Once the
// job is done, each can be corrected, unless the server keeps no corrections of it.

import { edit } from "./editor.js";
import { say } from "./tongue.js";

const DOUBT = 0.5; // a word that is less likely right than that is marked
const LONGEST = 10000; // characters of a line
const AROUND = 0.5; // seconds before a doubtful word, so that it is heard with what leads to it

export function clock(seconds) {
  const whole = Math.floor(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

const spoken = ({ segment }) => Boolean(segment.text.trim()); // a line may be corrected to nothing

export class Transcript {
  // `correct` sends a segment's new text to the server, and answers with the segment as it is then.
  constructor(list, audio, correct) {
    this.list = list;
    this.audio = audio;
    this.correct = correct;
    this.clear();
    audio.addEventListener("timeupdate", () => this.follow());
  }

  clear() {
    this.list.replaceChildren();
    this.lines = [];
    this.current = null;
    this.correctable = false;
  }

  // The whole text; with speakers, each turn on a line of its own.
  get text() {
    let last;
    return this.lines.filter(spoken).map(({ segment: { speaker, text } }) => {
      const name = speaker && speaker !== last ? `\n${speaker}:` : "";
      last = speaker;
      return name + text;
    }).join("").trim();
  }

  // Who speaks, in the order of their first words: `by` is the machine's name, `speaker` the one that is shown.
  get speakers() {
    return [...new Map(this.lines.filter(({ segment }) => segment.by).map(({ segment }) => [segment.by, segment])).values()];
  }

  add(segment) {
    const line = this.made(segment, this.lines.length ? -1 : 0); // Tab comes to one line; arrows go from line to line
    this.list.append(line.item);
    this.lines.push(line);
  }

  made(segment, tabIndex) {
    const button = document.createElement("button");
    const time = document.createElement("time");
    const text = document.createElement("span");
    const who = document.createElement("b");
    who.hidden = true;
    button.type = "button";
    button.className = "line";
    button.tabIndex = tabIndex;
    time.textContent = clock(segment.start);
    const words = segment.words.map((word) => {
      const part = document.createElement(word.probability < DOUBT ? "mark" : "i");
      part.textContent = word.word;
      return { ...word, part };
    });
    if (words.length) text.append(...words.flatMap(({ part }) => [part, " "]));
    else text.textContent = segment.text.trim();
    text.prepend(who, " ");
    button.append(time, text);
    button.addEventListener("click", () => this.play(segment));
    const item = document.createElement("li");
    item.append(button);
    const doubtful = words.filter(({ probability }) => probability < DOUBT);
    if (doubtful.length) item.append(this.doubts(doubtful));
    return { segment, item, button, words, who };
  }

  // The job is done: shows who speaks where it changes, and where lines can be corrected a button at each.
  finish(correctable) {
    this.correctable = correctable;
    if (correctable) for (const line of this.lines) this.offer(line);
    this.nameTurns();
  }

  offer(line) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "edit";
    button.tabIndex = -1; // F2 on the line does the same
    button.addEventListener("click", () => this.edit(line));
    line.button.setAttribute("aria-keyshortcuts", "F2");
    line.button.after(button);
    line.change = button;
    this.label(line);
  }

  label({ change, segment }) {
    change.textContent = say("Correct");
    change.setAttribute("aria-label", say("Correct the text at {0}", clock(segment.start)));
  }

  nameTurns() {
    let last;
    for (const line of this.lines) {
      const { segment: { speaker }, who } = line;
      who.textContent = speaker || "";
      who.hidden = !spoken(line) || !speaker || speaker === last;
      if (spoken(line)) last = speaker;
    }
  }

  rename(by, name) {
    for (const { segment } of this.lines) if (segment.by === by) segment.speaker = name;
    this.nameTurns();
  }

  // Lets a line be corrected: by default the one that has the focus or is being played.
  edit(line = this.lines.find(({ button }) => button === document.activeElement) || this.current) {
    if (!line || !this.correctable || line.button.hidden) return;
    const { segment } = line;
    const save = async (text) => this.replace(line, { ...await this.correct(segment, text), by: segment.by });
    const label = say("Text at {0}", clock(segment.start));
    edit(line.button, { value: segment.text.trim(), label, longest: LONGEST, many: true, save });
  }

  replace(line, segment) {
    const fresh = this.made(segment, line.button.tabIndex);
    line.item.replaceWith(fresh.item);
    this.lines[this.lines.indexOf(line)] = fresh;
    this.offer(fresh);
    this.nameTurns();
    this.follow();
    return fresh.button;
  }

  // Buttons for the words that may be wrong: Tab goes from one to the next, and each plays its word.
  doubts(words) {
    const row = document.createElement("p");
    row.className = "doubts";
    const label = document.createElement("span");
    label.textContent = say("Doubtful:");
    row.append(label, ...words.map((word) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = `${word.word} ${Math.round(word.probability * 100)} %`;
      button.addEventListener("focus", () => word.part.classList.add("shown"));
      button.addEventListener("blur", () => word.part.classList.remove("shown"));
      button.addEventListener("click", () => this.play({ start: Math.max(0, word.start - AROUND) }));
      return button;
    }));
    return row;
  }

  // The labels, in the page's language.
  retell() {
    for (const label of this.list.querySelectorAll(".doubts span")) label.textContent = say("Doubtful:");
    for (const line of this.lines) if (line.change) this.label(line);
  }

  play(segment) {
    this.audio.currentTime = segment.start;
    this.audio.play().catch(() => {}); // the browser says itself what it cannot play
    this.follow();
  }

  // Moves the focus by so many lines, from the one that has it or is being played.
  step(by) {
    const focused = this.lines.findIndex(({ button }) => button === document.activeElement);
    const from = focused >= 0 ? focused : this.lines.indexOf(this.current);
    const target = this.lines[Math.min(Math.max(from + by, 0), this.lines.length - 1)];
    if (target) {
      for (const { button } of this.lines) button.tabIndex = button === target.button ? 0 : -1;
      target.button.focus();
      target.button.scrollIntoView({ block: "nearest" });
    }
  }

  follow() {
    const now = this.audio.currentTime + 0.01; // a seek may land a hair before the line
    const line = this.lines.find(({ segment }) => segment.start <= now && now < segment.end) || null;
    if (line !== this.current) {
      this.current?.button.removeAttribute("aria-current");
      line?.button.setAttribute("aria-current", "true");
      if (line && !this.audio.paused) line.button.scrollIntoView({ block: "nearest", behavior: "smooth" });
      this.current = line;
    }
    for (const { start, end, part } of line?.words || []) {
      part.classList.toggle("now", start <= now && now < end);
    }
  }
}
