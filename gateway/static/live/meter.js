/* Level meter: bars of the last seconds, moving left. */

const STEP = 5; // CSS pixels per bar, including its gap
const BAR = 3;
const QUIET_DB = -55;

export class Meter {
  constructor(canvas) {
    this.canvas = canvas;
    this.levels = [];
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** @param {number} level root mean square, 0 to 1. */
  add(level) {
    const decibels = 20 * Math.log10(level || 1e-9);
    this.levels.push(Math.max(0, Math.min(1, (decibels - QUIET_DB) / -QUIET_DB)));
    if (this.levels.length > 400) this.levels.shift();
    this.draw();
  }

  clear() {
    this.levels = [];
    this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const scale = devicePixelRatio;
    this.canvas.width = width * scale;
    this.canvas.height = height * scale;
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.fillStyle = getComputedStyle(this.canvas).color;
    const count = Math.floor(width / STEP);
    for (let i = 0; i < count; i += 1) {
      const level = this.levels[this.levels.length - count + i] ?? 0;
      const tall = Math.max(2, level * height);
      pen.globalAlpha = level ? 0.35 + 0.65 * level : 0.22;
      pen.fillRect(i * STEP, (height - tall) / 2, BAR, tall);
    }
  }
}
