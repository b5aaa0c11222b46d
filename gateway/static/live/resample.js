/* Resampling from the browser's rate to 16 kHz: band-limited, continuous across blocks, without delay. */

export const RATE = 16000;

/* Zero crossings of the sinc on each side, for a transition band of about a twelfth of the rate. */
const CROSSINGS = 24;

/* Kaiser's beta for a stop band of -80 dB (J. F. Kaiser, 1974: 0.1102 (A - 8.7)). */
const BETA = 7.857;

/* Upper edge of the pass band, as a share of the lower of the two Nyquist frequencies. */
const PASS = 0.92;

function gcd(a, b) {
  return b ? gcd(b, a % b) : a;
}

/* Modified Bessel function of the first kind, order zero, by its series. */
function bessel(x) {
  let sum = 1;
  let term = 1;
  for (let k = 1; term > 1e-12 * sum; k += 1) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

/**
 * Polyphase filter. Output sample n lies at input position n * from / to; each fraction that this can have is a row of
 * taps.
 */
export class Resampler {
  /** @param {number} from samples per second. @param {number} to samples per second. */
  constructor(from, to = RATE) {
    const rate = Math.round(from);
    const common = gcd(rate, to);
    this.up = to / common;
    this.down = rate / common;
    const cutoff = (PASS * Math.min(rate, to)) / rate; // 1: the input's Nyquist frequency
    this.reach = this.up === this.down ? 0 : Math.ceil(CROSSINGS / cutoff);
    this.rows = this.reach ? this.#rows(cutoff) : null;
    /* Silence before the first sample, so that the first output is centred on it. */
    this.held = new Float32Array(this.reach);
    this.position = 0; // centre of the next output in `held`, in whole samples after `reach`
    this.phase = 0;
  }

  #rows(cutoff) {
    const width = 2 * this.reach;
    const top = bessel(BETA);
    return Array.from({ length: this.up }, (_, phase) => {
      const row = new Float32Array(width);
      let sum = 0;
      for (let k = 0; k < width; k += 1) {
        const x = k - this.reach + 1 - phase / this.up; // from the centre, in input samples
        const angle = Math.PI * x * cutoff;
        const window = Math.abs(x) < this.reach ? bessel(BETA * Math.sqrt(1 - (x / this.reach) ** 2)) / top : 0;
        row[k] = (angle ? Math.sin(angle) / angle : 1) * window;
        sum += row[k];
      }
      return row.map((tap) => tap / sum); // unit gain at 0 Hz in every phase
    });
  }

  /** Adds samples; returns the output that is complete by now. */
  push(samples) {
    if (!this.reach) return samples.slice();
    const input = new Float32Array(this.held.length + samples.length);
    input.set(this.held);
    input.set(samples, this.held.length);
    const output = [];
    const width = 2 * this.reach;
    while (this.position + width < input.length) {
      const row = this.rows[this.phase];
      let sum = 0;
      for (let k = 0; k < width; k += 1) sum += row[k] * input[this.position + 1 + k];
      output.push(sum);
      this.phase += this.down;
      this.position += Math.floor(this.phase / this.up);
      this.phase %= this.up;
    }
    const used = Math.min(this.position, input.length);
    this.held = input.slice(used);
    this.position -= used;
    return Float32Array.from(output);
  }

  /** Returns the rest of the output, as if silence followed. */
  flush() {
    return this.reach ? this.push(new Float32Array(this.reach)) : new Float32Array(0);
  }
}

/** Floats from -1 to 1 as 16-bit integers, clipped. Typed arrays are little-endian on all platforms of browsers. */
export function linear16(samples) {
  return Int16Array.from(samples, (value) => Math.max(-32768, Math.min(32767, Math.round(value * 32768))));
}

/** Mean of the channels. */
export function mono(channels) {
  if (channels.length === 1) return channels[0];
  const mixed = new Float32Array(channels[0].length);
  for (const channel of channels) {
    for (let i = 0; i < mixed.length; i += 1) mixed[i] += channel[i] / channels.length;
  }
  return mixed;
}
