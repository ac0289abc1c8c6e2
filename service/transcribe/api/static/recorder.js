// Records from the microphone.

export const canRecord = Boolean(navigator.mediaDevices?.getUserMedia && window.MediaRecorder);

export class Recorder {
  // `onTime` hears the seconds so far, `onDone` gets the recording.
  constructor(onTime, onDone) {
    this.onTime = onTime;
    this.onDone = onDone;
    this.recorder = null;
  }

  get active() {
    return this.recorder !== null;
  }

  async start() {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    const parts = [];
    const began = performance.now();
    const timer = setInterval(() => this.onTime((performance.now() - began) / 1000), 250);
    this.recorder = new MediaRecorder(stream);
    this.recorder.ondataavailable = (event) => parts.push(event.data);
    this.recorder.onstop = () => {
      clearInterval(timer);
      for (const track of stream.getTracks()) track.stop();
      const kind = this.recorder.mimeType;
      this.recorder = null;
      this.onDone(new Blob(parts, { type: kind }));
    };
    this.recorder.start(1000);
    this.onTime(0);
  }

  stop() {
    this.recorder?.stop();
  }
}
