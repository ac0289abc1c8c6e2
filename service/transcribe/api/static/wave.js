// The waveform: how loud the recording is over time, where the transcript has text, and where we are.

const LARGEST = 120e6; // bytes of a file that is decoded here: hours of sound would fill the browser's memory
const BAR = 3; // CSS pixels for each bar
const GAP = 1;
const STEP = 5; // seconds that an arrow key moves

export class Wave {
  constructor(canvas, audio) {
    this.canvas = canvas;
    this.audio = audio;
    this.clear();
    new ResizeObserver(() => this.draw()).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.seekTo(event);
    });
    canvas.addEventListener("pointermove", (event) => event.buttons && this.seekTo(event));
    canvas.addEventListener("keydown", (event) => {
      const moves = { Home: -Infinity, End: Infinity, PageUp: -6 * STEP, PageDown: 6 * STEP };
      if (event.key in moves) {
        event.preventDefault();
        this.move(moves[event.key]);
      }
    });
    audio.addEventListener("timeupdate", () => this.draw());
    audio.addEventListener("durationchange", () => this.draw());
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  clear() {
    this.samples = null;
    this.segments = [];
    this.known = 0;
    this.file = null;
  }

  // The recording's length: what the player knows, or else what the server found (recordings often do not say).
  get duration() {
    return Number.isFinite(this.audio.duration) ? this.audio.duration : this.known;
  }

  async load(file) {
    this.file = file;
    if (file.size > LARGEST) return;
    try {
      const context = new OfflineAudioContext(1, 1, 8000); // decodes to 8 kHz: enough to draw, a sixth of the memory
      const sound = await context.decodeAudioData(await file.arrayBuffer());
      if (this.file !== file) return;
      this.samples = sound.getChannelData(0);
      this.known ||= sound.duration;
      this.draw();
    } catch { /* a format that only the server reads: the line stays flat, the segments still show */ }
  }

  add(segment, duration) {
    this.segments.push(segment);
    if (duration) this.known = duration;
    this.draw();
  }

  move(seconds) {
    this.audio.currentTime = Math.min(Math.max(this.audio.currentTime + seconds, 0), this.duration || 0);
    this.draw();
  }

  seekTo(event) {
    const box = this.canvas.getBoundingClientRect();
    const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    if (this.duration) this.audio.currentTime = share * this.duration;
    this.draw();
  }

  level(from, to) {
    if (!this.samples) return 0.08;
    const rate = this.samples.length / this.duration;
    const last = Math.min(Math.ceil(to * rate), this.samples.length);
    let peak = 0;
    for (let i = Math.floor(from * rate); i < last; i += 2) peak = Math.max(peak, Math.abs(this.samples[i]));
    return Math.max(Math.sqrt(peak), 0.04); // the root lifts quiet speech into sight
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const scale = window.devicePixelRatio || 1;
    if (!width || !this.duration) return;
    if (this.canvas.width !== Math.round(width * scale) || this.canvas.height !== Math.round(height * scale)) {
      this.canvas.width = Math.round(width * scale);
      this.canvas.height = Math.round(height * scale);
    }
    const pen = this.canvas.getContext("2d");
    const style = getComputedStyle(this.canvas);
    const colour = (name) => style.getPropertyValue(name).trim();
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const across = (seconds) => (seconds / this.duration) * width;
    pen.fillStyle = colour("--tint");
    for (const { start, end } of this.segments) pen.fillRect(across(start), 0, Math.max(across(end - start) - 1, 1), height);
    for (let x = 0; x < width; x += BAR + GAP) {
      const from = (x / width) * this.duration;
      const to = ((x + BAR) / width) * this.duration;
      const spoken = this.segments.some(({ start, end }) => start < to && end > from);
      const tall = this.level(from, to) * (height - 8);
      pen.fillStyle = colour(spoken ? "--speech" : "--wave");
      pen.fillRect(x, (height - tall) / 2, BAR, tall);
    }
    pen.fillStyle = colour("--ink");
    pen.fillRect(Math.min(across(this.audio.currentTime), width - 2), 0, 2, height);
    this.canvas.setAttribute("aria-valuemax", this.duration.toFixed(1));
    this.canvas.setAttribute("aria-valuenow", this.audio.currentTime.toFixed(1));
    this.canvas.setAttribute("aria-valuetext", `${Math.round(this.audio.currentTime)} of ${Math.round(this.duration)} seconds`);
  }
}
