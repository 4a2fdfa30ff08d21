// The camera: frames to the server, one at a time, as fast as it answers.

import { Refused } from "./api.js";

const LONGEST = 640; // pixels of the longer side of a frame
const QUALITY = 0.85;
const REMEMBERED = 12; // frames over which the rate is taken
const PATIENCE = 5; // refusals in a row after which it stops

const WORDS = {
  NotAllowedError: "The browser does not let this page use the camera. Allow it beside the address, and try again.",
  NotFoundError: "There is no camera at this device.",
  NotReadableError: "The camera is used by another program. Close that, and try again.",
};

export class Camera {
  /** `mostPixels` returns how many pixels the server reads. */
  constructor({ mostPixels, onFrame, onRate, onEnd }) {
    Object.assign(this, { mostPixels, onFrame, onRate, onEnd });
    this.video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
    this.stream = null;
  }

  get isLive() {
    return this.stream !== null;
  }

  /** Asks for the camera and begins; errors are raised in words. */
  async start() {
    if (!navigator.mediaDevices) {
      throw new Refused(0, "Browsers give the camera only to pages from this machine or over HTTPS. Take a photo instead.");
    }
    const wanted = { video: { facingMode: "environment", width: { ideal: LONGEST } }, audio: false };
    try {
      this.stream = await navigator.mediaDevices.getUserMedia(wanted);
    } catch (error) {
      throw new Refused(0, WORDS[error.name] || `The camera cannot be used: ${error.message}`);
    }
    this.stream.getVideoTracks()[0].addEventListener("ended", () => this.stop("The camera was disconnected."));
    this.video.srcObject = this.stream;
    await this.video.play();
    this.run(this.stream);
  }

  async run(stream) {
    const times = [];
    let failures = 0;
    while (this.stream === stream) {
      const started = performance.now();
      const frame = this.take();
      try {
        await this.onFrame(await frame.convertToBlob({ type: "image/jpeg", quality: QUALITY }), frame);
        failures = 0;
        times.push(performance.now());
        if (times.length > REMEMBERED) times.shift();
        if (times.length > 1 && this.stream === stream) {
          const rate = (1000 * (times.length - 1)) / (times.at(-1) - times[0]);
          this.onRate(rate, performance.now() - started);
        }
      } catch (error) {
        if (error.name === "AbortError") return;
        failures += 1;
        if (error.status !== 503 || failures >= PATIENCE) { this.stop(error.message); return; }
        await new Promise((resolve) => { setTimeout(resolve, 1000 * Math.min(error.retryAfter, 5)); });
      }
      await new Promise((resolve) => { requestAnimationFrame(resolve); });
    }
  }

  /** Returns the present frame on a canvas. */
  take() {
    const { videoWidth: width, videoHeight: height } = this.video;
    const scale = Math.min(1, LONGEST / Math.max(width, height), Math.sqrt(this.mostPixels() / (width * height)));
    const canvas = new OffscreenCanvas(Math.floor(width * scale), Math.floor(height * scale));
    canvas.getContext("2d").drawImage(this.video, 0, 0, canvas.width, canvas.height);
    return canvas;
  }

  stop(reason = "") {
    if (!this.stream) return;
    for (const track of this.stream.getTracks()) track.stop();
    this.stream = null;
    this.video.srcObject = null;
    this.onEnd(reason);
  }
}
