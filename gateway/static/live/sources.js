/* Audio sources: microphone and recording. Both deliver 16 kHz mono, 16-bit integers. */

import { RATE, linear16, mono } from "./resample.js";

const MESSAGE = RATE / 10;

/* A recording is decoded as a whole, to four bytes per sample: about 230 MB per hour, plus the file. */
const MAX_FILE_BYTES = 512 * 1024 * 1024;

/* Bytes buffered in the browser for the network: 8 s. */
const MAX_WAITING = 256 * 1024;

const ERROR_CODES = {
  NotAllowedError: "denied",
  NotFoundError: "no_microphone",
  NotReadableError: "in_use",
  OverconstrainedError: "no_microphone", // the selected one was unplugged
};

/* Ids of Chromium's aliases for microphones that it lists as well. */
const ALIASES = ["default", "communications"];

/** No audio; `code` is a key of `ERRORS` in words.js. */
export class SourceError extends Error {
  constructor(code, detail = "") {
    super(detail || code);
    this.code = code;
  }
}

/** A microphone, from `open` to `stop`. */
export class Microphone {
  /** Microphones as [name, id]. Empty until the user has granted permission. */
  static async list() {
    const devices = (await navigator.mediaDevices?.enumerateDevices()) || [];
    return devices
      .filter(({ kind, label, deviceId }) => kind === "audioinput" && label && !ALIASES.includes(deviceId))
      .map(({ label, deviceId }) => [label, deviceId]);
  }

  /** Opens a microphone; without an id, the browser's default. @throws {SourceError} */
  static async open(id) {
    if (!window.isSecureContext || !navigator.mediaDevices) throw new SourceError("insecure");
    const context = new AudioContext({ latencyHint: "interactive" });
    try {
      await context.audioWorklet.addModule(new URL("worklet.js", import.meta.url)).catch((error) => {
        throw new SourceError("connection_lost", error.message); // served by the same host as the stream
      });
      const media = await navigator.mediaDevices.getUserMedia({
        // Echo cancellation and noise suppression distort words; gain control does not.
        audio: {
          ...(id && { deviceId: { exact: id } }),
          channelCount: 1,
          echoCancellation: false,
          noiseSuppression: false,
          autoGainControl: true,
        },
      });
      return new Microphone(context, media);
    } catch (error) {
      await context.close();
      throw error instanceof SourceError ? error : new SourceError(ERROR_CODES[error.name] || "no_audio", error.message);
    }
  }

  constructor(context, media) {
    this.context = context;
    this.media = media;
  }

  /** Calls `take(pcm, level)` every 100 ms until `stop`, or until the microphone is unplugged. */
  async run(take) {
    const source = this.context.createMediaStreamSource(this.media);
    this.node = new AudioWorkletNode(this.context, "capture", { numberOfOutputs: 0 });
    await this.context.resume();
    const ended = new Promise((resolve) => {
      this.node.port.onmessage = ({ data }) => (data ? take(data.pcm, data.level) : resolve());
    });
    this.media.getAudioTracks()[0].onended = () => this.stop();
    source.connect(this.node);
    if (this.stopped) this.stop(); // stopped before the node existed
    await ended;
    await this.abandon();
  }

  /** Ends `run`, after the audio captured so far. */
  stop() {
    this.stopped = true;
    this.node?.port.postMessage("stop");
  }

  /** Releases the microphone without a run. */
  async abandon() {
    for (const track of this.media.getTracks()) track.stop();
    if (this.context.state !== "closed") await this.context.close();
  }
}

/** A recording, decoded by the browser. */
export class Recording {
  /** @throws {SourceError} */
  static async open(file, realtime) {
    if (file.size > MAX_FILE_BYTES) throw new SourceError("too_large");
    try {
      const decoder = new OfflineAudioContext(1, 1, RATE); // decoding resamples to this rate
      const audio = await decoder.decodeAudioData(await file.arrayBuffer());
      const channels = Array.from({ length: audio.numberOfChannels }, (_, i) => audio.getChannelData(i));
      return new Recording(mono(channels), realtime);
    } catch (error) {
      throw new SourceError("not_audio", error.message);
    }
  }

  constructor(samples, realtime) {
    this.samples = samples;
    this.realtime = realtime;
    this.stopped = false;
  }

  get seconds() {
    return this.samples.length / RATE;
  }

  /** Calls `take(pcm, level)` for each 100 ms, at the pace that keeps `waiting()` bytes below `MAX_WAITING`. */
  async run(take, waiting) {
    const started = performance.now();
    for (let at = 0; at < this.samples.length && !this.stopped; at += MESSAGE) {
      const due = this.realtime ? started + ((at + MESSAGE) / RATE) * 1000 : 0;
      while (!this.stopped && (performance.now() < due || waiting() > MAX_WAITING)) await pause(20);
      const block = this.samples.subarray(at, at + MESSAGE);
      const power = block.reduce((sum, value) => sum + value * value, 0) / block.length;
      if (!this.stopped) take(linear16(block), Math.sqrt(power));
    }
  }

  stop() {
    this.stopped = true;
  }

  abandon() {
    this.stop();
  }
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
