/* Runs beside the page, on the audio thread: the microphone's blocks become 16 kHz mono, 100 ms at a time. */

import { RATE, Resampler, linear16, mono } from "./resample.js";

const MESSAGE = RATE / 10;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(sampleRate);
    this.held = [];
    this.count = 0;
    this.stopped = false;
    this.port.onmessage = () => this.#stop();
  }

  process([channels]) {
    if (this.stopped) return false;
    if (channels.length) this.#take(this.resampler.push(mono(channels)));
    return true;
  }

  #stop() {
    this.stopped = true;
    this.#take(this.resampler.flush());
    this.#say(this.count);
    this.port.postMessage(null);
  }

  #take(samples) {
    this.held.push(samples);
    this.count += samples.length;
    while (this.count >= MESSAGE) this.#say(MESSAGE);
  }

  #say(length) {
    const all = new Float32Array(this.count);
    let at = 0;
    for (const block of this.held) {
      all.set(block, at);
      at += block.length;
    }
    this.held = [all.slice(length)];
    this.count -= length;
    const message = all.subarray(0, length);
    const power = message.reduce((sum, value) => sum + value * value, 0) / (length || 1);
    const pcm = linear16(message);
    this.port.postMessage({ pcm, level: Math.sqrt(power) }, [pcm.buffer]);
  }
}

registerProcessor("capture", Capture);
