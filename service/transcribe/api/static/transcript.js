// The lines of the transcript: each is a button that plays its part of the recording.

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
    time.textContent = clock(segment.start);
    const words = segment.words.map((word) => {
      const part = document.createElement("i");
      part.textContent = word.word;
      part.style.fontStyle = "normal";
      return { ...word, part };
    });
    if (words.length) text.append(...words.flatMap(({ part }) => [part, " "]));
    else text.textContent = segment.text.trim();
    button.append(time, text);
    button.addEventListener("click", () => this.play(segment));
    const item = document.createElement("li");
    item.append(button);
    this.list.append(item);
    this.lines.push({ segment, button, words });
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
