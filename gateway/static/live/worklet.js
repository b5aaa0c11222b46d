/* Runs on the audio thread: turns the microphone's blocks into 100 ms messages of 16 kHz mono. */

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
    if (channels.length) this.#add(this.resampler.push(mono(channels)));
    return true;
  }

  #stop() {
    this.stopped = true;
    this.#add(this.resampler.flush());
    this.#post(this.count);
    this.port.postMessage(null);
  }

  #add(samples) {
    this.held.push(samples);
    this.count += samples.length;
    while (this.count >= MESSAGE) this.#post(MESSAGE);
  }

  #post(length) {
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
