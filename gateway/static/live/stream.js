/* Client of the WebSocket GET /v1/stream. */

/** One stream. */
export class LiveStream {
  /**
   * Connects and sends the config.
   * @param {object} config the first message.
   * @param {(event: object) => void} onEvent called with each event.
   */
  constructor(config, onEvent) {
    const url = new URL("v1/stream", document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    this.error = null;
    this.socket = new WebSocket(url);
    this.socket.binaryType = "arraybuffer";
    this.opened = new Promise((resolve) => {
      this.socket.onopen = () => {
        this.socket.send(JSON.stringify(config));
        resolve(true);
      };
      /* Resolves at the end of the stream: to null, or to the error, `{type, message, retry_after}`. */
      this.closed = new Promise((resolveClosed) => {
        this.socket.onclose = ({ code }) => {
          resolve(false);
          resolveClosed(code === 1000 ? null : this.error || { type: code === 1009 ? "payload_too_large" : "connection_lost" });
        };
      });
    });
    this.socket.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      if (event.error) this.error = event.error;
      else onEvent(event);
    };
  }

  /** Bytes buffered in the browser. */
  get waiting() {
    return this.socket.bufferedAmount;
  }

  /** Sends samples. Dropped once the stream has ended. */
  send(pcm) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(pcm);
  }

  /** Ends the audio; the service finishes the last utterance. */
  end() {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send('{"end": {}}');
  }

  /** Closes at once, without waiting for remaining events. */
  abandon() {
    this.socket.close();
  }
}
