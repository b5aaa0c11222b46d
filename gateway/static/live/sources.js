/* Where audio comes from: the microphone, or a recording. Both give 16 kHz mono in 16-bit integers. */

import { RATE, linear16, mono } from "./resample.js";

const MESSAGE = RATE / 10;

/* A recording is decoded whole, to four bytes a sample: about 230 MB an hour, and the file besides. */
const MAX_FILE_BYTES = 512 * 1024 * 1024;

/* What may wait in the browser for the network, bytes: 8 s. */
const MAX_WAITING = 256 * 1024;

const REFUSALS = {
  NotAllowedError: "denied",
  NotFoundError: "no_microphone",
  NotReadableError: "in_use",
  OverconstrainedError: "no_microphone", // the chosen one is unplugged
};

/* Chromium's other names for microphones that it lists besides. */
const ALIASES = ["default", "communications"];

/** Why there is no audio; `code` is a key of `words.js`. */
export class SourceError extends Error {
  constructor(code, detail = "") {
    super(detail || code);
    this.code = code;
  }
}

/** The microphone, from `open` to `stop`. */
export class Microphone {
  /** Those that the browser names, as [name, id]: none before it was allowed to listen. */
  static async list() {
    const devices = (await navigator.mediaDevices?.enumerateDevices()) || [];
    return devices
      .filter(({ kind, label, deviceId }) => kind === "audioinput" && label && !ALIASES.includes(deviceId))
      .map(({ label, deviceId }) => [label, deviceId]);
  }

  /** Asks for a microphone; without an id, for the browser's choice. @throws {SourceError} */
  static async open(id) {
    if (!window.isSecureContext || !navigator.mediaDevices) throw new SourceError("insecure");
    const context = new AudioContext({ latencyHint: "interactive" });
    try {
      await context.audioWorklet.addModule(new URL("worklet.js", import.meta.url)).catch((error) => {
        throw new SourceError("connection_lost", error.message); // the file comes from where the stream goes
      });
      const media = await navigator.mediaDevices.getUserMedia({
        // What makes a call pleasant makes words unclear: only the level is evened out.
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
      throw error instanceof SourceError ? error : new SourceError(REFUSALS[error.name] || "no_audio", error.message);
    }
  }

  constructor(context, media) {
    this.context = context;
    this.media = media;
  }

  /** Gives each 100 ms to `take(pcm, level)`, until `stop`, or until the microphone is unplugged. */
  async run(take) {
    const source = this.context.createMediaStreamSource(this.media);
    this.node = new AudioWorkletNode(this.context, "capture", { numberOfOutputs: 0 });
    await this.context.resume();
    const ended = new Promise((resolve) => {
      this.node.port.onmessage = ({ data }) => (data ? take(data.pcm, data.level) : resolve());
    });
    this.media.getAudioTracks()[0].onended = () => this.stop();
    source.connect(this.node);
    if (this.stopped) this.stop(); // before there was anything to stop
    await ended;
    await this.abandon();
  }

  /** What has been heard so far is still given. */
  stop() {
    this.stopped = true;
    this.node?.port.postMessage("stop");
  }

  /** Without having run. */
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
      const decoder = new OfflineAudioContext(1, 1, RATE); // decoding resamples to its rate
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

  /** Gives 100 ms after 100 ms to `take(pcm, level)`, as fast as `waiting()`, in bytes, stays small. */
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
