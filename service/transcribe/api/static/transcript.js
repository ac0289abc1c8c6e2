// The lines of the transcript: each is a button that plays its part of the recording, with its doubtful words.

import { say } from "./tongue.js";

const DOUBT = 0.5; // a word that is less likely right than that is marked
const AROUND = 0.5; // seconds before a doubtful word, so that it is heard with what leads to it

export function clock(seconds) {
  const whole = Math.floor(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

export class Transcript {
  constructor(list, audio) {
    this.list = list;
    this.audio = audio;
    this.clear();
    audio.addEventListener("timeupdate", () => this.follow());
  }

  clear() {
    this.list.replaceChildren();
    this.lines = [];
    this.current = null;
  }

  get text() {
    return this.lines.map(({ segment }) => segment.text).join("").trim();
  }

  add(segment) {
    const button = document.createElement("button");
    const time = document.createElement("time");
    const text = document.createElement("span");
    button.type = "button";
    button.className = "line";
    button.tabIndex = this.lines.length ? -1 : 0; // Tab comes to one line; arrows go from line to line
    time.textContent = clock(segment.start);
    const words = segment.words.map((word) => {
      const part = document.createElement(word.probability < DOUBT ? "mark" : "i");
      part.textContent = word.word;
      return { ...word, part };
    });
    if (words.length) text.append(...words.flatMap(({ part }) => [part, " "]));
    else text.textContent = segment.text.trim();
    button.append(time, text);
    button.addEventListener("click", () => this.play(segment));
    const item = document.createElement("li");
    item.append(button);
    const doubtful = words.filter(({ probability }) => probability < DOUBT);
    if (doubtful.length) item.append(this.doubts(doubtful));
    this.list.append(item);
    this.lines.push({ segment, button, words });
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
